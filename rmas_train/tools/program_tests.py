"""Whether a program passes its tests, in the sandbox; a program cannot say so itself.

Assertions and calls run in ``harness.py``: the program in one process, the tests in another. A
program that reads and prints is run once for each case, and what it prints is compared here, where
the sandbox ends.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from rmas_train.tools.python_tool import REASONS, Limits, run_python

# What programs for judges of contests use without importing it.
IMPORTS = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
sys.setrecursionlimit(50_000)
"""
ROOM = 1000  # characters of output that are kept beyond the wanted ones


@dataclass(frozen=True)
class ProgramTests:
    """The tests of one problem; either statements or cases.

    Attributes:
        statements: Python statements, such as ``assert f(1) == 2``, which see the program's names.
        cases: ``input`` and ``output`` of each; of a call or of a whole run.
        function: name of the function, or of the method of a class ``Solution``, that the cases
            call with a JSON value a line; None: the program reads stdin and prints.
    """

    statements: Sequence[str] = ()
    cases: Sequence[Mapping[str, str]] = ()
    function: str | None = None


@dataclass(frozen=True)
class Tested:
    """Whether all tests passed, and why not."""

    passed: bool
    why: str = ""


def passes(
    program: str, tests: ProgramTests, limits: Limits, most_seconds: float | None = None
) -> Tested:
    """Run a program's tests; the first that fails ends it.

    Args:
        program: its text.
        tests: what it has to pass.
        limits: of one run: all statements, all calls, or one case with stdin.
        most_seconds: of all runs together; None: no limit.
    """
    if tests.cases and tests.function is None:
        return _by_output(program, tests.cases, limits, most_seconds)
    most = limits.seconds if most_seconds is None else min(limits.seconds, most_seconds)
    return _by_harness(program, tests, replace(limits, seconds=most))


def _by_harness(program: str, tests: ProgramTests, limits: Limits) -> Tested:
    word = secrets.token_hex(16)
    job = {
        "word": word,
        "tests": list(tests.statements),
        "function": tests.function,
        "cases": [dict(case) for case in tests.cases],
    }
    whole = with_imports(program) if tests.function is not None else program
    code = f"PROGRAM = {whole!r}\n{_harness()}"
    ran = run_python(code, limits, json.dumps(job), errors=False)
    if ran.why is not None:
        return Tested(False, _stopped(ran.why, limits))
    try:
        said: Any = json.loads(ran.output.rstrip().rsplit("\n", 1)[-1])
        is_ours = said["word"] == word
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        return Tested(False, "the tests did not come to their end")
    return Tested(said["passed"] is True, str(said["why"]))


def _by_output(
    program: str, cases: Sequence[Mapping[str, str]], limits: Limits, most_seconds: float | None
) -> Tested:
    whole, began = with_imports(program), time.monotonic()
    for number, case in enumerate(cases):
        left = limits.seconds
        if most_seconds is not None:
            left = min(left, most_seconds - (time.monotonic() - began))
        if left <= 0:
            return Tested(False, f"case {number}: after {most_seconds:g} s for all cases")
        kept = len(case["output"].encode()) + ROOM
        own = replace(limits, seconds=left, output_chars=kept)
        ran = run_python(whole, own, case["input"], errors=False)
        if ran.why is not None or ran.code != 0:
            why = _stopped(ran.why, own) if ran.why else f"exit code {ran.code}"
            return Tested(False, f"case {number}: {why}")
        if not same_output(ran.output, case["output"]):
            return Tested(False, f"case {number}: another output")
    return Tested(True)


def _stopped(why: str, limits: Limits) -> str:
    return "stopped " + REASONS[why].format(seconds=limits.seconds, **_numbers(limits))


def _numbers(limits: Limits) -> dict[str, int]:
    return {"memory_mib": limits.memory_mib, "processes": limits.processes}


def with_imports(program: str) -> str:
    """The program after the imports that judges of contests give."""
    return program if "from __future__" in program else f"{IMPORTS}\n{program}"


def same_output(found: str, wanted: str) -> bool:
    """The same lines without outer spaces; numbers may be written in another way (1.0 and 1)."""
    one, other = found.strip().splitlines(), wanted.strip().splitlines()
    if len(one) != len(other):
        return False
    return all(_same_line(a.strip(), b.strip()) for a, b in zip(one, other, strict=True))


def _same_line(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return [Decimal(word) for word in one.split()] == [Decimal(w) for w in other.split()]
    except InvalidOperation:
        return False


@cache
def _harness() -> str:
    return (Path(__file__).parent / "harness.py").read_text(encoding="utf-8")
