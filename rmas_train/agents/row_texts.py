"""Texts of a prompt that depend on the row: ``columns`` in a prompt file.

    user: |-
      <<question>>
      <<last_line>>
    columns:
      last_line:
        - when: [{column: question, options: true}]
          text: Name the letter of the right option.
        - text: Give the answer as a number.

A column's first case whose tests all hold gives its text; the last one may have no tests. A text
may name columns of the row. There are no patterns of the file's own: a folder of anybody's links
holds prompts too, and a pattern can be made to run for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import short

TESTS = ("options", "contains", "one_of", "given")
# A line that begins with an option's letter, as in "B) 12".
OPTIONS = re.compile(r"(?mi)^\s*[A-D]\s*[.):-]\s+")
COLUMN = re.compile(r"<<([A-Za-z_][A-Za-z0-9_]*)>>")


@dataclass(frozen=True)
class RowTest:
    """A test of one column of a row; a row without it has an empty text.

    Attributes:
        column: of the row.
        kind: ``options``: has a line that begins with an option's letter; ``contains``: a phrase,
            whatever its case; ``one_of``: one of these values, whatever the case; ``given``: is
            there and not empty.
        value: phrase, or values with | between them.
        wanted: the answer for which the case is taken: what ``options`` and ``given`` say, and
            ``is`` beside the others.
    """

    column: str
    kind: str
    value: str
    wanted: bool

    def holds(self, row: Mapping[str, Any]) -> bool:
        text = str(row.get(self.column) or "").strip()
        match self.kind:
            case "options":
                found = OPTIONS.search(text) is not None
            case "contains":
                found = self.value.lower() in text.lower()
            case "one_of":
                found = text.lower() in self.value.lower().split("|")
            case _:
                found = bool(text)
        return found == self.wanted


@dataclass(frozen=True)
class RowText:
    """A column that is computed from the row.

    Attributes:
        cases: tests and text; the first case whose tests all hold is taken.
    """

    cases: tuple[tuple[tuple[RowTest, ...], str], ...]

    def text(self, row: Mapping[str, Any]) -> str:
        found = next((t for tests, t in self.cases if all(x.holds(row) for x in tests)), "")
        return COLUMN.sub(lambda mark: str(row.get(mark[1]) or ""), found)

    @property
    def needed(self) -> set[str]:
        """Columns that a row has to have; those that may be missing are tested for it."""
        tests = [test for tests, _ in self.cases for test in tests]
        return {test.column for test in tests if test.kind in ("options", "contains")}


def read_row_texts(texts: Mapping[str, Any], where: str = "prompt") -> dict[str, RowText]:
    """The computed columns of a prompt's texts.

    Raises:
        DataError: names ``where``, the key and what is wrong.
    """
    columns = texts.get("columns") or {}
    if not isinstance(columns, dict):
        raise DataError(f"{where}: key 'columns' holds {short(columns)}; give names with cases.")
    return {str(name): _read(cases, f"{where}: columns.{name}") for name, cases in columns.items()}


def _read(cases: Any, where: str) -> RowText:
    if not isinstance(cases, list) or not cases:
        raise DataError(f"{where}: holds {short(cases)}; give a list of cases with `text`.")
    found = []
    for case in cases:
        if not isinstance(case, dict) or not isinstance(case.get("text"), str):
            raise DataError(f"{where}: a case is {short(case)}; give `text`, and tests as `when`.")
        if "<<message:" in case["text"]:
            raise DataError(f"{where}: a slot cannot depend on the row; put it into `user`.")
        if unknown := sorted(set(map(str, case)) - {"text", "when"}):
            raise DataError(f"{where}: unknown key '{unknown[0]}'; a case has `when` and `text`.")
        tests = case.get("when") or []
        if not isinstance(tests, list):
            raise DataError(f"{where}: when is {short(tests)}; give a list of tests.")
        found.append((tuple(_test(test, where) for test in tests), case["text"]))
    return RowText(tuple(found))


def _test(test: Any, where: str) -> RowTest:
    if not isinstance(test, dict) or not isinstance(test.get("column"), str):
        raise DataError(f"{where}: a test is {short(test)}; give `column` and one of {TESTS}.")
    kinds = [key for key in test if key not in ("column", "is")]
    if len(kinds) != 1 or kinds[0] not in TESTS:
        named = str(kinds[0]) if kinds else ""
        raise DataError(
            f"{where}: a test of {test['column']} has {kinds}; give one of {', '.join(TESTS)}. "
            f"{did_you_mean(named, TESTS)}"
        )
    kind, value, wanted = kinds[0], test[kinds[0]], test.get("is", True)
    if kind in ("options", "given"):
        wanted, value = value, ""
    if not isinstance(wanted, bool) or not isinstance(value, str):
        raise DataError(
            f"{where}: a test of {test['column']} is {short(test)}; give a text to `contains` and "
            "`one_of`, and true or false to the others."
        )
    return RowTest(test["column"], kind, value, wanted)
