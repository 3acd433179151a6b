"""One traceback for a run of many processes: that of the process which failed first."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from rmas_train.support.redact import clean

CLAIM = ".failed"


def clear_claim(run_dir: Path) -> None:
    """Before a run: no process of it has failed yet."""
    (run_dir / CLAIM).unlink(missing_ok=True)


def claim(run_dir: Path, rank: int) -> bool:
    """Whether this process is the first to fail; the others follow from it and stay quiet."""
    try:
        handle = os.open(run_dir / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except OSError:  # nothing can be written there: better twice than never
        return True
    with os.fdopen(handle, "w") as file:
        file.write(f"{rank}\n")
    return True


def fail(run_dir: Path, rank: int, world: int) -> NoReturn:
    """Print the traceback, if this process failed first, and end it.

    Ends without the interpreter's clean-up, which may wait for ranks that wait for this one: the
    launcher sees a dead process at once, and stops the others.
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
