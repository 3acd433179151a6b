"""Data recipes: a folder of ``data_recipes/`` with a ``build.py`` that writes the data files.

A recipe with a writer keeps the texts in a journal beside the data folder, so that a build which
was killed can continue.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rmas_train.compose.stamp import STAMP, read_stamp, wanted_stamp
from rmas_train.config import DataConfig
from rmas_train.errors import DataError, did_you_mean
from rmas_train.recipes.options import JOURNAL
from rmas_train.recipes.packing import MANIFEST, check_manifest
from rmas_train.support.files import PACKAGE, resource_root


def prepare(config: DataConfig, seed: int) -> Path:
    """The data folder; its recipe is run unless the same recipe and options made it already.

    Raises:
        DataError: unknown recipe, failing build, a folder that was made in another way, or files
            that differ from the build's manifest.
    """
    folder = Path(config.folder)
    if config.recipe is None:
        return folder
    recipes = resource_root() / "data_recipes"
    known = sorted(p.parent.name for p in recipes.glob("*/build.py"))
    if not re.fullmatch(r"[a-z0-9_]+", config.recipe) or config.recipe not in known:
        raise DataError(f"data.recipe={config.recipe}: {did_you_mean(config.recipe, known)}")
    made = wanted_stamp(config, seed)
    if read_stamp(folder) == made:
        for manifest in folder.rglob(MANIFEST):
            check_manifest(manifest.parent)
        return folder
    if folder.exists() and any(folder.iterdir()) and read_stamp(folder) is None:
        raise DataError(
            f"data.folder={folder} holds files that no recipe made; choose another folder, or set "
            "data.recipe=null to use them."
        )
    _build(recipes / config.recipe / "build.py", folder, made)
    return folder


def _build(script: Path, folder: Path, made: dict) -> None:
    """Run the recipe in a temporary folder, and move the folder into place when it is complete."""
    work = folder.with_name(f"{folder.name}.tmp{os.getpid()}")
    command = [sys.executable, str(script), "--out", str(work), "--seed", str(made["seed"])]
    for key, value in made["options"].items():
        command += [f"--{key}" if value is True else f"--{key}={value}"]  # no value is an option
    try:
        work.mkdir(parents=True)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=_environment(folder))
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            last = last.removeprefix("error: ").rstrip(".")
            raise DataError(f"{script}: {last} (options: {made['options']}).")
        sys.stderr.write(done.stderr)  # its warnings
        (work / STAMP).write_text(json.dumps(made))
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as error:
        raise DataError(
            f"data.folder={folder}: {error.strerror}; choose a folder that is writable."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Environment of the recipe: it can import this package, and knows its journal's path."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    journal = str(folder.with_name(f"{folder.name}.journal.jsonl").absolute())
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), JOURNAL: journal}
