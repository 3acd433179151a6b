"""Grader of mathematical answers: equal as mathematics, by math-verify (extra ``math``).

Strict: no answer, or one that cannot be parsed, is unreadable and so wrong. What the library does
not see is handed to it: LaTeX that stands in a sentence without dollar signs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.graders import Grade

DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")
# What frames a gold answer itself; an escaped dollar is money, and a matrix needs a frame.
GOLD_DELIMITED = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\boxed")
BARE = re.compile(r"\S*\\[A-Za-z]+\S*")  # a word with a command in it
SECONDS = 5


class MathGrader:
    """Compares what a text says last with the row's ``answer``, as expressions."""

    def __init__(self, config: Config) -> None:  # noqa: ARG002
        try:
            from math_verify import parse, verify
        except ImportError:
            raise ConfigError(
                "data.grader=math needs the library math-verify; pip install 'rmas_train[math]'."
            ) from None
        self._parse, self._verify = parse, verify

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        gold, found = self._gold(str(row["answer"])), self._found(text)
        if not found:
            return Grade(False, False, None)
        right = bool(self._verify(gold, found, strict=True, timeout_seconds=SECONDS))
        return Grade(right, True, str(found[-1]))

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            answer = str(row["answer"])
            if not re.search(r"\w", answer) or not self._gold(answer):
                raise DataError(
                    f"{table.where(i)}: answer {row['answer']!r} is no mathematical expression "
                    "that can be read; mend the row, or take another data.grader."
                )

    def _gold(self, answer: str) -> list[Any]:
        """All of it: without a frame, ``3\\sqrt{2}`` would be read as 3."""
        whole = answer.strip()
        framed = whole if GOLD_DELIMITED.search(whole) else f"\\boxed{{{whole}}}"
        return list(self._parse(framed, parsing_timeout=SECONDS))

    def _found(self, text: str) -> list[Any]:
        if not DELIMITED.search(text):
            text = BARE.sub(lambda match: _framed(match[0]), text)
        return list(self._parse(text, parsing_timeout=SECONDS))


def _framed(word: str) -> str:
    """A word of LaTeX in dollar signs, without the full stop or comma behind it."""
    kept = word.rstrip(".,;:!?")
    return f"${kept}${word[len(kept) :]}"
