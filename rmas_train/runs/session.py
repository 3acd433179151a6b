"""A run in progress: its folder held, its processes joined, its log open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rmas_train.config import Config
from rmas_train.errors import UserError
from rmas_train.runtime.failure import claim, clear_claim, fail
from rmas_train.runtime.runtime import Runtime
from rmas_train.support.files import check_writable, locked
from rmas_train.support.log import say, start_log, stop_log


def is_main_process() -> bool:
    """Rank 0, or the only process; known before any back end starts."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """The run folder, writable and held against other runs.

    Raises:
        ConfigError: it cannot be written, or another run holds it.
    """
    check_writable(run_dir, "run_dir")
    with locked(run_dir) if is_main_process() else nullcontext():
        yield


@contextmanager
def session(config: Config) -> Iterator[Runtime]:
    """All processes of a run, with a log in its folder; one of them tells of a failure."""
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
    except Exception:
        if runtime.world == 1:
            raise
        fail(run_dir, runtime.rank, runtime.world)
    finally:
        stop_log()
