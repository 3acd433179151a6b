"""``rmas-train ...``, ``python -m rmas_train ...``: what was typed, and how errors are told."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING

import rmas_train
from rmas_train.errors import UserError
from rmas_train.support.output import DISK, check_typed, clean, exit_code, one_line, rank
from rmas_train.support.reading import check_launched

if TYPE_CHECKING:  # --version and --help need no config
    from rmas_train.compose import Typed

# Command -> module with its `run_command`, imported when it is asked for.
COMMANDS = {
    "audit": "rmas_train.command.audit",
    "links": "rmas_train.command.links",
    "prompts": "rmas_train.command.prompts",
    "serve": "rmas_train.command.serve",
    "lm-eval": "rmas_train.command.harness_command",
}


def run() -> None:
    """The command, as a process of its own."""
    if os.name != "posix":  # locks, the sandbox and the signals are POSIX
        sys.exit("error: rmas_train needs Linux or another POSIX system; on Windows, use WSL.")
    warnings.formatwarning = warning_line
    sys.excepthook = tell_crash
    warnings.filterwarnings("default", module="rmas_train")
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # what read our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:  # what we print goes to a full disk
        if error.errno not in DISK:
            raise
        print(f"error: the output cannot be written ({error.strerror}).", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 2
    sys.exit(code)


def main(argv: list[str]) -> int:
    """Run what was typed; 0, or 2 after an error that the user can correct."""
    # DeepSpeed's launcher adds it for every process; the environment says the same.
    argv = [a for a in argv if not a.startswith("--local_rank=")]
    own = argv[0] if argv[:1] and argv[0] in COMMANDS else None
    if own is None and {"-h", "--help"} & set(argv):
        from rmas_train.command.help import print_help

        print_help()
        return 0
    if "--version" in argv:
        print(f"rmas_train {rmas_train.__version__}")
        return 0
    kept = "; finished stages and checkpoints are kept" if own is None else ""
    return exit_code(lambda: run_command(argv), f"interrupted{kept}", is_told_here)


def run_command(argv: list[str]) -> None:
    """A command by name, a run, or a sweep."""
    check_typed(argv)
    if argv[:1] and argv[0] in COMMANDS:
        import_module(COMMANDS[argv[0]]).run_command(argv[1:])
    else:
        run_typed(argv)


def is_told_here(error: UserError) -> bool:
    """One process of several tells the user: the one that failed first, else rank 0."""
    told: bool = getattr(error, "is_first", rank() == 0)
    return told


def run_typed(argv: list[str]) -> None:
    """One run, or a sweep of them."""
    from rmas_train.compose import read_typed

    check_launched()
    asked = read_typed(argv)
    if asked.is_sweep:
        from rmas_train.command.sweep import sweep

        sweep(asked)
    else:
        run_one(asked)


def run_one(asked: Typed) -> None:
    """Compose what was typed, say what differs from the experiment, run; or only show it."""
    from rmas_train.compose import changes, compose, to_yaml

    config = compose([*asked.flags, *asked.overrides])
    is_main = rank() == 0
    if asked.is_shown:
        print(to_yaml(config), end="", flush=True) if is_main else None
        return
    if is_main:
        for line in [*changes(asked, config), "full config: the same command with --show"]:
            print(clean(line))
        print(flush=True)
    from rmas_train.stages.pipeline import execute  # torch and all that a run needs

    execute(config)


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
