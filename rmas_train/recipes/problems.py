"""One problem of a source data set, and the short final answer in its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import short

BOX = re.compile(r"\\boxed\s*\{")
LONGEST_FINAL = 80  # characters of an answer that may be its own final answer


class Skip(Exception):  # noqa: N818 - it is no error; the row is counted under this reason
    """Raised to leave a row out; the text is the reason under which it is counted."""


@dataclass(frozen=True)
class Problem:
    """A source row after a recipe's mapping.

    Attributes:
        question: as the agents read it.
        answer: the text that the last agent should write.
        reference: a worked solution that the writer may read; "" if there is none.
        final: the short answer that grading compares; "" for code.
        task: math, choice, code or qa.
        extra: further columns, which are copied into the row unchanged.
    """

    question: str
    answer: str
    reference: str
    final: str
    task: str
    extra: dict[str, Any] = field(default_factory=dict)


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """A column's text.

    Raises:
        DataError: there is no such column, or it holds no text; names row and column.
        Skip: the text is empty.
    """
    if column not in row:
        raise DataError(f"{where}: no column '{column}'. {did_you_mean(column, row)}")
    value = row[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Skip(f"no_{column}")
    if not isinstance(value, str):
        raise DataError(f"{where}: column '{column}' is {short(value)}, not a text; fix the row.")
    return value.strip()


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, with inner braces; None if none is closed."""
    found = None
    for start in BOX.finditer(text):
        depth, end = 1, start.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth == 0:
            found = text[start.end() : end - 1].strip()
    return found


def final_of(answer: str) -> str | None:
    """The final answer of a text: its last box, or the whole text if it is one short line."""
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed or None
    line = answer.strip().strip("$").strip()
    return line if line and "\n" not in line and len(line) <= LONGEST_FINAL else None


def with_final(answer: str, final: str) -> str:
    """The answer with its box at the end; unchanged if it has that box or needs none."""
    if not final or last_boxed(answer) == final:
        return answer
    return f"{answer.rstrip()}\n\nFinal answer: \\boxed{{{final}}}"


def keeps_final(text: str, problem: Problem) -> bool:
    """Whether a rewritten answer keeps the source's final answer: the box, or fenced code."""
    if problem.task == "code":
        return re.search(r"```\w*\n.*\S.*\n?```", text, re.DOTALL) is not None
    return not problem.final or _plain(last_boxed(text)) == _plain(problem.final)


def _plain(text: str | None) -> str:
    return "".join((text or "").split()).casefold()
