"""Flags: what argparse complains about is one line with exit code 2, like every other error."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, NoReturn

from rmas_train.errors import ConfigError

WIDTH = 80  # columns of a help text, whatever the terminal


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ``ConfigError``, and whose help fits 80 columns."""

    def __init__(self, **options: Any) -> None:
        narrow = partial(argparse.HelpFormatter, width=WIDTH)
        super().__init__(formatter_class=narrow, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("python -m rmas_train").strip()
        raise ConfigError(f"{command}: {message}. See --help.".removeprefix(": "))
