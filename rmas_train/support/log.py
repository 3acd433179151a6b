"""The log of a run: on the terminal, and as plain text in ``run.log`` of the run folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from rmas_train.support.redact import clean

LOGGER = logging.getLogger("rmas_train")
FORMAT = "%(asctime)s rank %(rank)s %(message)s"


class CleanFormatter(logging.Formatter):
    """No secrets, no control characters, and no text that looks like a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record)).replace("\n", "\n  ")


def start_log(run_dir: Path, rank: int) -> None:
    """Rank 0 writes to the terminal; every rank writes to the file, with its number."""
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
    """Write a line to the file only; the terminal shows it in another way (a progress bar)."""
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(LOGGER.makeRecord("rmas_train", logging.INFO, "", 0, line, (), None))
