"""A run in progress: its folder held and described, its processes joined, its log open."""

from __future__ import annotations

import logging
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import torch

from rmas_train.compose import to_yaml
from rmas_train.config import Config
from rmas_train.errors import UserError
from rmas_train.runs.earlier import tidy
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import check_writable, locked, write_json, write_text
from rmas_train.support.output import clean, redacted, say, start_log, stop_log

CLAIM = ".failed"


def clear_claim(run_dir: Path) -> None:
    """Before a run: remove the mark of an earlier failure."""
    (run_dir / CLAIM).unlink(missing_ok=True)


def claim(run_dir: Path, rank: int) -> bool:
    """Whether this process is the first to fail. Later failures follow from it and print less."""
    try:
        handle = os.open(run_dir / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except OSError:  # no file can be written: two tracebacks are better than none
        return True
    with os.fdopen(handle, "w") as file:
        file.write(f"{rank}\n")
    return True


def fail(run_dir: Path, rank: int, world: int) -> NoReturn:
    """Print the traceback, if this process failed first, and end the process.

    The interpreter's clean-up is skipped, because it may wait for ranks that wait for this one. So
    the launcher notices the failure at once and stops the others.
    """
    logging.getLogger("rmas_train").info(traceback.format_exc())
    if claim(run_dir, rank):
        trace = clean(traceback.format_exc())
        print(f"rank {rank} of {world} failed first:\n{trace}", file=sys.stderr)
    else:
        first = (run_dir / CLAIM).read_text(encoding="utf-8").strip()
        print(f"rank {rank} stops, because rank {first} failed", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


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
    name = "-m rmas_train" if program.name == "__main__.py" else os.path.relpath(program)
    return {
        "command": redacted(" ".join(["python", name, *sys.argv[1:]])),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def is_main_process() -> bool:
    """Rank 0, or the only process; known before any back end starts."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """The run folder, writable, held against other runs, and put right after a killed one.

    Raises:
        ConfigError: it cannot be written, or another run holds it.
    """
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
        clear_claim(run_dir)
    runtime = Runtime(config.runtime)
    start_log(run_dir, runtime.rank)
    try:
        say(f"stage={config.stage}: {runtime.describe()}")
        yield runtime
        runtime.close()
    except UserError as error:
        say(f"error: {error}") if runtime.world > 1 and not runtime.is_main else None
        error.is_first = runtime.world == 1 or claim(run_dir, runtime.rank)
        raise
    except Exception:  # any bug on any rank: the first one's traceback alone is printed
        if runtime.world == 1:
            raise
        fail(run_dir, runtime.rank, runtime.world)
    finally:
        stop_log()
