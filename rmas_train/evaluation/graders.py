"""Graders: whether a text answers a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.registry import GRADERS


@dataclass(frozen=True)
class Grade:
    """What a grader says of one text.

    Attributes:
        right: unreadable is wrong.
        readable: there was an answer in the text.
        read: what was compared; None if unreadable.
    """

    right: bool
    readable: bool
    read: str | None


class Grader(Protocol):
    """Compares a text with a row's ``answer``."""

    def grade(self, row: Mapping[str, Any], text: str) -> Grade: ...

    def check(self, table: Table) -> None:
        """Every gold answer can be read by the grader that reads the system's.

        Raises:
            DataError: names the line and the answer.
        """
        ...


def make_grader(config: Config) -> Grader:
    """The grader that ``data.grader`` names."""
    grader: Grader = GRADERS.get(config.data.grader)(config)
    return grader


class PatternGrader:
    """Exact comparison of what ``data.answer_pattern`` finds."""

    def __init__(self, config: Config) -> None:
        self._pattern = config.data.answer_pattern

    def read(self, text: str) -> str | None:
        """What the pattern finds in a text; None if there is nothing."""
        match = re.search(self._pattern, text)
        return match["answer"] if match else None

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        read = self.read(text)
        return Grade(read == self.read(row["answer"]), read is not None, read)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            if self.read(row["answer"]) is None:
                lines = " ((?s) at its beginning lets . match line ends)" * ("\n" in row["answer"])
                raise DataError(
                    f"{table.where(i)}: answer {row['answer']!r} does not match "
                    f"data.answer_pattern={self._pattern}; mend the row or the pattern{lines}."
                )
