"""A run in progress: its folder held and described, its processes joined, its log open.

Starting over: all that a stage and the stages after it have left is set aside together, to
``run_dir/earlier/<n>``. What is to be moved is written down first, so that a run that is killed in
between is put right by the next one, and no folder ever holds a mixture of two runs.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import torch

from rmas_train.compose import to_yaml
from rmas_train.config import Config
from rmas_train.errors import CheckpointError, LinksError, StoppedError, UserError
from rmas_train.links.card import CARD, read_card
from rmas_train.runs.failure import CLAIM, claim, fail
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.compare import why_other
from rmas_train.support.contained import check_contained
from rmas_train.support.files import (
    PACKAGE,
    check_writable,
    locked,
    remove,
    remove_leftovers,
    sync,
    write_json,
    write_text,
)
from rmas_train.support.output import file_only, one_line, rank, redacted, say, start_log, stop_log
from rmas_train.support.reading import check_type, parse_json

EARLIER, MARK = "earlier", ".starting_over.json"
PARTS = {  # what a stage and those after it leave
    "inner": ("report", "results.json", "eval", "eval_records", "analyse", "outer", "inner"),
    "outer": ("report", "results.json", "eval", "eval_records", "analyse", "outer"),
    "lora": ("report", "results.json", "eval", "eval_records", "lora"),
    "sft": ("report", "results.json", "eval", "eval_records", "sft"),
    "eval": ("report", "results.json", "eval"),
}
FOLDERS = (
    *("inner", "inner/checkpoints", "outer", "outer/checkpoints", "lora", "sft"),
    *("eval", "analyse", "plan"),
)
OVER = "go on with the same options, or start over without resume"

PACKAGES = (
    "rmas_train",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "hydra-core",
)


def stage_folder(
    config: Config, stage: str, agents: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """``run_dir/<stage>``, writable, with the resolved config and the environment's versions.

    Args:
        config, stage: whose folder.
        agents: name -> model, revision (the hub's commit), fingerprint; as loaded.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = Path(config.run_dir) / stage
    check_writable(folder, "run_dir")
    describe(folder, config, agents)
    say(f"full config: {folder / 'config.yaml'}")
    return folder


def describe(
    folder: Path, config: Config, agents: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write the resolved config and the environment's versions."""
    write_text(folder / "config.yaml", to_yaml(config))
    write_json(folder / "environment.json", environment() | {"agents": dict(agents or {})})


def environment() -> dict[str, Any]:
    """Versions, hardware and the command, for every file with numbers."""
    program = Path(sys.argv[0])
    is_package = program.name == "__main__.py"
    name = ["-m", "rmas_train"] if is_package else [os.path.relpath(program)]
    return {
        "command": redacted(shlex.join(["python", *name, *sys.argv[1:]])),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


@cache
def _commit() -> str | None:
    """Of the clone that the package runs from, marked where files have changed; else None."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    ask = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_main_process() -> bool:
    """Rank 0, or the only process; known before any back end starts."""
    return rank() == 0


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """The run folder, writable, held against other runs, and put right after a killed one.

    Raises:
        ConfigError: it cannot be written, leads elsewhere, or another run holds it.
    """
    check_contained(run_dir)
    check_writable(run_dir, "run_dir")
    with locked(run_dir) if is_main_process() else nullcontext():
        if is_main_process():
            tidy(run_dir)
        yield


@contextmanager
def session(config: Config) -> Iterator[Runtime]:
    """All processes of a run, with a log in its folder; one of them reports a failure."""
    run_dir = Path(config.run_dir)
    if is_main_process():
        (run_dir / CLAIM).unlink(missing_ok=True)
    runtime = Runtime(config.runtime)
    start_log(run_dir, runtime.rank)
    try:
        say(f"stage={config.stage}: {runtime.describe()}")
        yield runtime
        runtime.close()
        file_only("ended without an error")
    except UserError as error:  # the terminal is told once, where the command ends
        file_only(f"{'stop' if isinstance(error, StoppedError) else 'error'}: {one_line(error)}")
        error.is_first = runtime.world == 1 or claim(run_dir, runtime.rank)
        raise
    except Exception as error:  # any bug on any rank: the first one's traceback alone is printed
        if runtime.world == 1:
            file_only(f"error: {one_line(error)}\n{traceback.format_exc()}")
            raise
        fail(run_dir, runtime.rank, runtime.world)
    except KeyboardInterrupt:
        file_only("stop: interrupted")
        raise
    finally:
        stop_log()


class Plan(TypedDict):
    """Types of the mark: what goes where."""

    to: int
    parts: list[str]


def tidy(run_dir: Path) -> None:
    """What a killed run left unfinished in its folder is undone or brought to its end."""
    for name in ("", "report", *FOLDERS):
        if not any((run_dir / part).is_symlink() for part in (name, Path(name).parent) if name):
            remove_leftovers(run_dir / name)
    _remove_finished_records(run_dir)
    if (run_dir / MARK).is_file():
        try:
            plan = parse_json((run_dir / MARK).read_text(encoding="utf-8"))
            check_type(plan, Plan, "")
            known = plan["to"] > 0 and set(plan["parts"]) <= set().union(*PARTS.values())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{run_dir / MARK}: {error}; remove the file.") from error
        if not known:
            raise CheckpointError(f"{run_dir / MARK}: names other files; remove the file.")
        _move(run_dir, plan["to"], plan["parts"])


def _remove_finished_records(run_dir: Path) -> None:
    """Records of an evaluation whose results are there, if it was killed before it removed them."""
    records, results = run_dir / "eval_records", run_dir / "eval" / "results.json"
    if records.is_symlink() or not records.is_dir() or not results.is_file():
        return
    written = [path.stat().st_mtime_ns for path in records.iterdir()]
    if max(written, default=0) < results.stat().st_mtime_ns:
        remove(records)


def set_aside(run_dir: Path, stage: str) -> Path | None:
    """Move what ``stage`` and later stages left; where it is now, None if there was nothing."""
    parts = [name for name in PARTS[stage] if _is_there(run_dir / name)]
    if not parts:
        return None
    number = 1 + max((int(p.name) for p in _numbered(run_dir)), default=0)
    write_json(run_dir / MARK, {"to": number, "parts": parts})
    return _move(run_dir, number, parts)


def _numbered(run_dir: Path) -> list[Path]:
    return [p for p in (run_dir / EARLIER).glob("*") if re.fullmatch(r"[1-9]\d{0,8}", p.name)]


def _move(run_dir: Path, number: int, parts: list[str]) -> Path:
    place = run_dir / EARLIER / str(number)
    place.mkdir(parents=True, exist_ok=True)
    for name in parts:
        if _is_there(run_dir / name) and not _is_there(place / name):
            (run_dir / name).rename(place / name)
    sync(place)
    sync(run_dir)
    (run_dir / MARK).unlink()
    return place


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def begin(config: Config, stage: str, identity: Mapping[str, Any], resume: str | None) -> None:
    """Before a training stage writes: go on with what is there, or set it aside.

    Raises:
        CheckpointError: it is to go on, and what is there is of another run.
    """
    run_dir = Path(config.run_dir)
    if resume is not None:
        check_same(run_dir / stage, identity)
    elif place := set_aside(run_dir, stage):
        say(f"starting over; what was there is in {place} (resume=auto goes on)")


def check_same(folder: Path, identity: Mapping[str, Any]) -> None:
    """Links and start in a stage's folder have this identity; checkpoints are the saver's.

    Raises:
        CheckpointError: names what differs.
    """
    for name in ("start", "links"):
        path = folder / name
        if not (path / CARD).is_file():
            continue
        try:
            card = read_card(path)
        except LinksError as error:
            raise CheckpointError(f"{error} Or start over without resume.") from error
        if card.identity != identity:
            other = why_other(card.identity, identity)
            raise CheckpointError(f"{path} is of another run ({other}); {OVER}.")
