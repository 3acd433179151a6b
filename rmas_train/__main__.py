"""``python -m rmas_train stage=... key=value ...``: the only entry point."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rmas_train.errors import UserError

if TYPE_CHECKING:  # imported late below, so that --help and typing errors answer at once
    from rmas_train.config import Config


def main(argv: list[str]) -> int:
    """Run what was typed; 0, or 2 for what the user can mend."""
    if {"-h", "--help"} & set(argv):
        from rmas_train.reporting.help import print_help

        print_help()
        return 0
    try:
        if {"-m", "--multirun"} & set(argv):
            from rmas_train.sweep import sweep

            sweep([a for a in argv if a not in ("-m", "--multirun")])
        else:
            run_one(argv)
    except UserError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; finished stages are kept", file=sys.stderr)
        return 130
    return 0


def run_one(overrides: list[str]) -> None:
    """Compose, print the resolved config, run, report."""
    from rmas_train.compose import compose, to_yaml

    config = compose(overrides)
    if int(os.environ.get("RANK", "0")) == 0:
        print(to_yaml(config), flush=True)
    execute(config)


def execute(config: Config) -> None:
    """Run a composed config in this process and, where it measured something, report."""
    from rmas_train.files import check_writable
    from rmas_train.log import say, start_log, stop_log
    from rmas_train.reporting.report import write_report

    run_dir = Path(config.run_dir)
    check_writable(run_dir, "run_dir")
    is_main = True
    if config.stage != "report":
        from rmas_train.runtime.runtime import Runtime
        from rmas_train.stages.pipeline import run

        runtime = Runtime(config.runtime)
        is_main = runtime.is_main
        start_log(run_dir, runtime.rank)
        try:
            say(f"stage={config.stage}: {runtime.describe()}")
            run(config, runtime)
        finally:
            stop_log()
            runtime.close()
    if is_main and config.stage in ("report", "eval", "pipeline"):
        write_report(run_dir)


if __name__ == "__main__":
    warnings.filterwarnings("default", module="rmas_train")
    sys.exit(main(sys.argv[1:]))
