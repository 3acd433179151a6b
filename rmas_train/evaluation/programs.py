"""The grader of programs: the last fenced block of a text has to pass the row's unit tests."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from rmas_train.config import Config
from rmas_train.config.evaluation import check_programs
from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.evaluation.graders import Grade
from rmas_train.support.reading import check_type, parse_json
from rmas_train.tools.program_tests import ProgramTests, passes
from rmas_train.tools.python_tool import Limits, check
from rmas_train.tools.toolbox import limits

FENCE = re.compile(r"^[ \t]*```[ \t]*([^\s`]*)[^`\n]*$", re.MULTILINE)
LANGUAGES = ("", "python", "python3", "py")
MOST_BYTES = 2**30  # of one problem's hidden cases, unpacked
COLUMNS = ("tests", "cases", "hidden_cases")
NEEDED = (
    "data.grader=code needs `tests`, a list of statements, or `cases`, a list of "
    "{input, output} texts (with `function` where they are calls)"
)


class CodeGrader:
    """Right: the text's last block of Python passes every test of the row, in the sandbox.

    A text without a closed block is unreadable. What a program prints or how it ends says nothing:
    docs/evaluation.md.
    """

    def __init__(self, config: Config) -> None:
        check_programs(config.data.grader, config.allow_code_execution)
        self._limits = replace(limits(config.tools), seconds=config.data.test_seconds)
        self._most = config.data.problem_seconds
        _checked(self._limits)

    def grade(self, row: Mapping[str, Any], text: str) -> Grade:
        program = last_program(text)
        if program is None:
            return Grade(False, False, None)
        tests = tests_of(row, f"line {row.get('_line', '?')}")
        return Grade(passes(program, tests, self._limits, self._most).passed, True, program)

    def check(self, table: Table) -> None:
        table.require_answers()
        for i, row in enumerate(table.rows):
            tests_of(row, table.where(i))


@cache
def _checked(wanted: Limits) -> None:
    """The sandbox runs, with warnings on what it cannot protect; tried once."""
    check(wanted, "data.grader=code")


def last_program(text: str) -> str | None:
    """The last closed block of Python, or of no named language; None: there is none."""
    found, opened = None, None
    for mark in FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif not mark[1]:
            block = text[opened.end() : mark.start()].removeprefix("\n")
            if opened[1].lower() in LANGUAGES and block.strip():
                found = block
            opened = None
        else:  # another one begins before this one ends: it was cut, or is none
            opened = mark
    return found


def tests_of(row: Mapping[str, Any], where: str) -> ProgramTests:
    """The unit tests of a row.

    Raises:
        DataError: it has none, or malformed ones; names ``where``.
    """
    given = {name: row[name] for name in COLUMNS if row.get(name)}
    try:
        tests, function = given.get("tests", []), row.get("function")
        cases = [*given.get("cases", []), *_unpacked(given.get("hidden_cases"))]
        check_type(tests, list[str], "tests")
        check_type(cases, list[dict[str, str]], "cases")
        check_type(function, str | None, "function")
        if bool(tests) == bool(cases):
            raise ValueError("tests and cases in one row" if tests else "no tests")
        if any(not {"input", "output"} <= case.keys() for case in cases):
            raise ValueError("a case without input or output")
        _check_values(cases if function else [])
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}; {NEEDED}.") from error
    return ProgramTests(tests, cases, function)


def _check_values(cases: list[dict[str, str]]) -> None:
    """Cases of calls hold JSON: a value a line, and one for the output."""
    for case in cases:
        for line in (*case["input"].splitlines(), case["output"]):
            if line.strip():
                parse_json(line)


def _unpacked(text: Any) -> list[dict[str, str]]:
    """Cases that ``packed`` has made smaller."""
    if text is None:
        return []
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        found: list[dict[str, str]] = parse_json(data.decode())
        return found
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise ValueError("hidden_cases cannot be unpacked; build the rows anew") from error
