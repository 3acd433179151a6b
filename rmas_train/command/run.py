"""One run: its config composed and told of, its stages on every rank, then the report."""

from __future__ import annotations

import os
from pathlib import Path

from rmas_train.compose import Typed, changes, compose, full_config, import_plugins, to_yaml
from rmas_train.config import Config
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
    from rmas_train.runs.session import held, is_main_process, session
    from rmas_train.stages.pipeline import run

    import_plugins(config.plugins)  # a sweep's job may be a process of its own
    run_dir = Path(config.run_dir)
    with held(run_dir):
        if config.stage != "report":
            with session(config) as runtime:
                run(config, runtime)
        if is_main_process() and config.stage in ("report", "eval", "pipeline"):
            write_report(run_dir)
