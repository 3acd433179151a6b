"""Graders of short answers: the letter of an option, and words as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import Grade
from rmas_train.recipes.problems import last_boxed

LETTERS = "ABCDEFGHIJ"
TEXT = re.compile(r"\\text\{(.*)\}", re.DOTALL)
# From the surest way to say a letter to the least sure; the last match of the first way counts.
SAID = (
    re.compile(r"\\boxed\{\s*(?:\\text\{)?\(?([A-J])\)?\}?\s*\}"),
    re.compile(
        r"(?i:answer|option|choice)(?i:\s+(?:is|would be|must be))?\s*:?\s*\**\(?([A-J])\b(?!['’])"
    ),
    re.compile(r"\(([A-J])\)"),
    re.compile(r"(?m)^\s*\**([A-J])\**\s*(?:[.):]|$)"),
)


class LetterGrader:
    """The letter of an option; a text that names none is unreadable and wrong, whatever the gold.

    The release's reading takes A where it finds nothing (docs/paper.md); this one does not.
    """

    def __init__(self, config: Config) -> None:
        del config  # every grader is made from it

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        gold, read = str(row["answer"]).strip().upper(), read_letter(text)
        return Grade(read == gold, read is not None, read)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            answer = str(row["answer"]).strip().upper()
            if len(answer) != 1 or answer not in LETTERS:
                raise DataError(
                    f"{table.where(i)}: answer {row['answer']!r} is no letter from A to J; "
                    "data.grader=letter needs one."
                )


def read_letter(text: str) -> str | None:
    """The letter that a text gives as its answer; None: none, or several in the same place."""
    for way in SAID:
        found = way.findall(text)
        if found:
            return str(found[-1])
    return None


class SquadGrader:
    """Exact match and F1 with SQuAD's normalisation (Rajpurkar and others 2016).

    The last ``\\boxed{}`` is compared, or without one the whole text, without case, punctuation,
    articles and extra spaces; a row may have further gold answers in ``aliases``. Right is an exact
    match; ``score`` is the best F1.
    """

    def __init__(self, config: Config) -> None:
        del config

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        golds = [str(row["answer"]), *map(str, row.get("aliases") or ())]
        read = normalised(answer_of(text))
        score = max(f1(read, normalised(gold)) for gold in golds)
        right = any(read == normalised(gold) for gold in golds)
        return Grade(right, read != "", read or None, score)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            if not normalised(str(row["answer"])):
                raise DataError(
                    f"{table.where(i)}: nothing is left of answer {row['answer']!r} without "
                    "articles and punctuation; take another data.grader."
                )


def answer_of(text: str) -> str:
    """What stands in the last box of a text; without one, the text."""
    boxed = last_boxed(text)
    if boxed is None:
        return text
    inside = TEXT.fullmatch(boxed)
    return inside[1] if inside else boxed


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and extra spaces."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def f1(read: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words, with their counts."""
    one, other = read.split(), gold.split()
    common = sum((Counter(one) & Counter(other)).values())
    if not common:
        return 0.0
    return 2 * common / (len(one) + len(other))
