"""The release's lenient reading of answers, beside the strict graders, under names that say so.

From descriptions of the released code, in our own words; docs/evaluation.md says which rules are
known and which are our reading. They inflate accuracy: use them to compare with numbers that were
made with them, and never alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rmas_train.config import Config
from rmas_train.data.rows import Table
from rmas_train.errors import ConfigError
from rmas_train.evaluation.graders import Grade, Grader
from rmas_train.evaluation.short_answers import answer_of, normalised, read_letter

FLAT_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
FRACTION = re.compile(r"\\[dt]?frac\{?(-?\d+)\}?\{?(\d+)\}?")
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?")
DECORATION = re.compile(r"\\(?:left|right|text|mathrm|,|!|;| )|[\s${}]")
DEFAULT_LETTER = "A"


class LenientMathGrader:
    """Right if any of four readings agrees; the first is the whole part of the first number.

    So 3/4 equals 0.5, and 2x+1 equals 2x+9.
    """

    def __init__(self, config: Config) -> None:
        del config  # every grader is made from it

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        boxes = FLAT_BOX.findall(text)
        read, gold = (boxes[-1] if boxes else text).strip(), str(row["answer"]).strip()
        right = any(_agree(reading, read, gold) for reading in READINGS)
        return Grade(right, read != "", read or None)

    def check(self, table: Table) -> None:
        table.require_answers()


def whole_part(text: str) -> str | None:
    """The whole part of the first number in a text, a fraction divided."""
    found = NUMBER.search(FRACTION.sub(r"\1/\2", text).replace(",", ""))
    if found is None:
        return None
    below = float(found[2] or 1)
    return str(int(float(found[1]) / below)) if below else None


READINGS: tuple[Callable[[str], str | None], ...] = (
    whole_part,
    lambda text: text,
    lambda text: "".join(text.lower().split()),
    lambda text: DECORATION.sub("", text).lower().rstrip("."),
)


def _agree(reading: Callable[[str], str | None], one: str, other: str) -> bool:
    found = reading(one)
    return found is not None and found != "" and found == reading(other)


class LenientLetterGrader:
    """A letter as ``letter`` reads it; where there is none, in the text or in the gold, A.

    Such a text is counted as unreadable, and yet as right where the gold is A.
    """

    def __init__(self, config: Config) -> None:
        del config

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        read = read_letter(text)
        gold = read_letter(str(row["answer"]).strip().upper()) or DEFAULT_LETTER
        return Grade((read or DEFAULT_LETTER) == gold, read is not None, read)

    def check(self, table: Table) -> None:
        table.require_answers()


class LenientTextGrader:
    """Right if the gold words stand anywhere in the box or the text, in any case."""

    def __init__(self, config: Config) -> None:
        del config

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        read, gold = normalised(answer_of(text)), normalised(str(row["answer"]))
        return Grade(gold != "" and gold in read, read != "", read or None)

    def check(self, table: Table) -> None:
        table.require_answers()


# Strict grader -> the release's reading of the same answers.
LENIENT: dict[str, Callable[[Config], Grader]] = {
    "math": LenientMathGrader,
    "letter": LenientLetterGrader,
    "choices": LenientLetterGrader,
    "squad": LenientTextGrader,
}


def lenient_grader(config: Config) -> Grader | None:
    """What counts as the release counts, beside the grader; None unless ``evaluation.lenient``.

    Raises:
        ConfigError: the grader has no such counterpart.
    """
    if not config.evaluation.lenient:
        return None
    if config.data.grader not in LENIENT:
        raise ConfigError(
            f"evaluation.lenient=true with data.grader={config.data.grader}: the release's lenient "
            f"reading is known for {', '.join(LENIENT)}; leave it out."
        )
    return LENIENT[config.data.grader](config)
