"""What a run says: to the terminal, and as plain text to ``run.log`` in the run folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from rmas_train.support.redact import clean

LOGGER = logging.getLogger("rmas_train")
FORMAT = "%(asctime)s rank %(rank)s %(message)s"


class CleanFormatter(logging.Formatter):
    """No secrets, no control characters, and no text that passes for a line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record)).replace("\n", "\n  ")


def start_log(run_dir: Path, rank: int) -> None:
    """Lines of rank 0 go to the terminal; every rank's go to the file, with its number."""
    stop_log()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    file = logging.FileHandler(run_dir / "run.log", encoding="utf-8")
    file.setFormatter(CleanFormatter(FORMAT, defaults={"rank": rank}))
    LOGGER.addHandler(file)
    if rank == 0:
        terminal = logging.StreamHandler(sys.stdout)
        terminal.setFormatter(CleanFormatter())
        LOGGER.addHandler(terminal)


def stop_log() -> None:
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


def say(line: str) -> None:
    LOGGER.info(line)


def file_only(line: str) -> None:
    """For lines that the terminal shows in another way (a progress bar)."""
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(LOGGER.makeRecord("rmas_train", logging.INFO, "", 0, line, (), None))
