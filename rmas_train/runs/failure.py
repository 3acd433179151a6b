"""Which of several processes failed first: it alone prints a traceback."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from rmas_train.support.output import clean

CLAIM = ".failed"  # in the run folder; removed when a run begins


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
