"""Graders: whether a text answers a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.registry import GRADERS
from rmas_train.support.reading import short


@dataclass(frozen=True)
class Grade:
    """What a grader says of one text.

    Attributes:
        right: unreadable is wrong.
        readable: there was an answer in the text.
        read: what was compared; None if unreadable.
        score: 0 to 1, where a grader knows more than right and wrong.
    """

    right: bool
    readable: bool
    read: str | None
    score: float | None = None


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


class ChoicesGrader:
    """The first words of a closed set, ``choices``, that a text holds.

    They are found as whole words, in any case. As many are read as the row's answer has: usually
    one; if several, they count in their order.
    """

    def __init__(self, config: Config) -> None:
        del config  # every grader is made from it

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        choices = choices_of(row, f"line {row.get('_line', '?')}")
        gold = find_choices(choices, row["answer"])
        read = find_choices(choices, text)[: len(gold)]
        return Grade(read == gold and gold != [], read != [], ", ".join(read) or None)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            choices = choices_of(row, table.where(i))
            if not find_choices(choices, row["answer"]):
                raise DataError(
                    f"{table.where(i)}: answer {row['answer']!r} holds none of the row's choices "
                    f"({short(choices)}); mend one of the two."
                )


def choices_of(row: Mapping[str, Any], where: str) -> list[str]:
    """The row's closed set.

    Raises:
        DataError: it is no list of two or more different texts; names ``where``.
    """
    found = row.get("choices")
    listed = found if isinstance(found, list) else []
    choices = [choice.strip() for choice in listed if isinstance(choice, str) and choice.strip()]
    if len({choice.lower() for choice in choices}) < max(2, len(listed)):
        raise DataError(
            f"{where}: column 'choices' is {short(found)}; data.grader=choices needs a list of two "
            "or more different texts, all that may be answered."
        )
    return choices


def find_choices(choices: Sequence[str], text: str) -> list[str]:
    """The choices that a text holds as whole words, in the order of the text.

    ``red`` is no part of ``reddish`` or ``red-haired``. Of choices that begin alike the longest is
    taken.
    """
    known = {choice.lower(): choice for choice in choices}
    longest = sorted(known, key=len, reverse=True)
    pattern = rf"(?<!\w)(?<!\w-)(?:{'|'.join(map(re.escape, longest))})(?!\w|-\w)"
    return [known[found.lower()] for found in re.findall(pattern, text, re.IGNORECASE)]
