"""``python -m rmas_train stage=... key=value ...``: the only entry point."""

from __future__ import annotations

import os
import sys
import warnings

from rmas_train.errors import UserError


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
    print(to_yaml(config), flush=True) if int(os.environ.get("RANK", "0")) == 0 else None
    execute(config)


def execute(config) -> None:  # noqa: ANN001  (Config; imported late so that errors come fast)
    """Run a composed config in this process and, where it measured something, report."""
    from pathlib import Path

    from rmas_train.files import check_writable
    from rmas_train.reporting.report import write_report

    check_writable(Path(config.run_dir), "run_dir")
    if config.stage != "report":
        from rmas_train.runtime.runtime import Runtime
        from rmas_train.stages.pipeline import run

        runtime = Runtime(config.runtime)
        if runtime.is_main:
            print(f"running {config.stage}: {runtime.describe()}", flush=True)
        try:
            run(config, runtime)
        finally:
            runtime.close()
        if not runtime.is_main:
            return
    if config.stage in ("report", "eval", "pipeline"):
        write_report(Path(config.run_dir))


if __name__ == "__main__":
    warnings.filterwarnings("default", module="rmas_train")
    sys.exit(main(sys.argv[1:]))
