"""``python -m rmas_train stage=... key=value ...``: the only entry point."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rmas_train.errors import StoppedError, UserError
from rmas_train.redact import check_typed, clean, one_line

if TYPE_CHECKING:  # imported late below, so that --help and typing errors answer at once
    from rmas_train.config import Config


def main(argv: list[str]) -> int:
    """Run what was typed; 0, or 2 for what the user can mend."""
    # DeepSpeed's launcher adds it for every process; the environment says the same.
    argv = [a for a in argv if not a.startswith("--local_rank=")]
    is_links = argv[:1] == ["links"]
    if {"-h", "--help"} & set(argv) and not is_links:
        from rmas_train.reporting.help import print_help

        print_help()
        return 0
    try:
        check_typed(argv)
        if is_links:
            from rmas_train.link_commands import run_command

            run_command(argv[1:])
        elif {"-m", "--multirun"} & set(argv):
            from rmas_train.sweep import sweep

            sweep([a for a in argv if a not in ("-m", "--multirun")])
        else:
            run_one(argv)
    except UserError as error:
        if is_told_here(error):
            prefix = "" if isinstance(error, StoppedError) else "error: "
            print(f"{prefix}{one_line(error)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder where a file should be, no permission
        if error.filename is None:
            raise
        line = f"{error.filename}: {error.strerror}; check the path, its permissions and the disk."
        print(f"error: {one_line(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished stages and checkpoints are kept", file=sys.stderr)
        return 130
    return 0


def is_told_here(error: UserError) -> bool:
    """One process of several tells the user: the one that failed first, else rank 0."""
    told: bool = getattr(error, "is_first", int(os.environ.get("RANK", "0")) == 0)
    return told


def run_one(overrides: list[str]) -> None:
    """Compose, print the resolved config, run, report."""
    from rmas_train.compose import compose, to_yaml

    config = compose(overrides)
    if int(os.environ.get("RANK", "0")) == 0:
        print(to_yaml(config), flush=True)
    execute(config)


def execute(config: Config) -> None:
    """Run a composed config in this process and, where it measured something, report."""
    from rmas_train.files import check_writable, locked
    from rmas_train.reporting.report import write_report

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
    from rmas_train.log import say, start_log, stop_log
    from rmas_train.runtime.failure import claim, clear_claim, fail
    from rmas_train.runtime.runtime import Runtime
    from rmas_train.stages.pipeline import run

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


def tell_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The interpreter's traceback, without secrets and control characters."""
    print(clean("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def warning_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning in one line, without the source text that the interpreter adds."""
    del line
    return f"{filename}:{lineno}: {category.__name__}: {one_line(message)}\n"


if __name__ == "__main__":
    warnings.formatwarning = warning_line
    sys.excepthook = tell_crash
    warnings.filterwarnings("default", module="rmas_train")
    sys.exit(main(sys.argv[1:]))
