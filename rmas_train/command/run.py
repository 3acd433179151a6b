"""One run: its config composed and told of, its stages on every rank, then the report."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from rmas_train.compose import Typed, changes, compose, full_config, import_plugins, to_yaml
from rmas_train.config import Config
from rmas_train.errors import UserError
from rmas_train.support.files import check_writable, locked
from rmas_train.support.redact import clean


def run_one(asked: Typed) -> None:
    """Compose what was typed, say what differs from the experiment, run; or only show it."""
    config = compose([*asked.flags, *asked.overrides])
    is_main = int(os.environ.get("RANK", "0")) == 0
    if asked.is_shown:
        print(to_yaml(config), end="", flush=True) if is_main else None
        return
    if is_main:
        for line in [*changes(asked, config), full_config(config)]:
            print(clean(line))
        print(flush=True)
    execute(config)


def execute(config: Config) -> None:
    """Run a composed config in this process and, where it measured something, report."""
    from rmas_train.reporting.report import write_report

    import_plugins(config.plugins)  # a sweep's job may be a process of its own
    run_dir = Path(config.run_dir)
    check_writable(run_dir, "run_dir")
    is_main = int(os.environ.get("RANK", "0")) == 0
    with locked(run_dir) if is_main else nullcontext():
        if config.stage != "report":
            run_stages(config, run_dir, is_main)
        if is_main and config.stage in ("report", "eval", "pipeline"):
            write_report(run_dir)


def run_stages(config: Config, run_dir: Path, is_main: bool) -> None:
    """The stages, with a log, on every rank; one of the ranks tells of a failure."""
    from rmas_train.runtime.failure import claim, clear_claim, fail
    from rmas_train.runtime.runtime import Runtime
    from rmas_train.stages.pipeline import run
    from rmas_train.support.log import say, start_log, stop_log

    if is_main:
        clear_claim(run_dir)
    runtime = Runtime(config.runtime)
    start_log(run_dir, runtime.rank)
    try:
        say(f"stage={config.stage}: {runtime.describe()}")
        run(config, runtime)
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
