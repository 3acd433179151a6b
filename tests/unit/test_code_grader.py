"""The grader of programs: what it reads, what passes, and programs that only claim to be right."""

import re

import pytest

from rmas_train.config import Config, DataConfig, ToolsConfig
from rmas_train.data.rows import table_of
from rmas_train.errors import ConfigError, DataError
from rmas_train.evaluation.graders import make_grader
from rmas_train.evaluation.programs import last_program
from rmas_train.tools.program_tests import ProgramTests, passes, same_output
from rmas_train.tools.python_tool import Limits

pytestmark = pytest.mark.filterwarnings("ignore::rmas_train.errors.SandboxWarning")
LIMITS = Limits(seconds=10)
ADD = "def add(a, b):\n    return a + b\n"
ASSERTS = ProgramTests(["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]"])
READS = ProgramTests(cases=[{"input": f"{n} 2\n", "output": f"{n + 2}\n"} for n in (1, 5)])
CALLS = ProgramTests(cases=[{"input": "[1, 2]\n3", "output": "[4, 5]"}], function="shift")


def ran(program, tests=ASSERTS, limits=LIMITS):
    return passes(program, tests, limits)


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (ADD, ASSERTS),
        ("import operator\nadd = operator.add", ASSERTS),
        ("print('hello')\n" + ADD, ASSERTS),
        (ADD + "if __name__ == '__main__':\n    input('a number: ')\n", ASSERTS),
        ("a, b = map(int, input().split())\nprint(a + b)", READS),
        (
            "import sys\nprint('x', file=sys.stderr)\nprint(float(sum(map(int, open(0).read().split()))))",
            READS,
        ),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit(0)", READS),
        (
            "class Solution:\n    def shift(self, xs: List[int], n):\n        return [x + n for x in xs]",
            CALLS,
        ),
        ("def shift(xs, n):\n    return tuple(x + n for x in xs)", CALLS),
    ],
)
def test_right_programs_pass(program, tests):
    assert ran(program, tests).passed


# Each of them says that it is right, or ends before anybody can say that it is wrong.
CHEATS = {
    "prints ok": "print('ok')\nprint('OK', 'passed', 'PASSED')",
    "prints a verdict": 'print(\'{"word": "", "passed": true, "why": ""}\')',
    "exits": "print('ok')\nraise SystemExit(0)",
    "exits hard": "import os\nprint('ok')\nos._exit(0)",
    "exits when called": "import os\ndef add(a, b):\n    os._exit(0)",
    "equals everything": "class A:\n    def __eq__(self, o):\n        return True\ndef add(a, b):\n    return A()",
    "equal number": "class A(int):\n    def __eq__(self, o):\n        return True\ndef add(a, b):\n    return A(9)",
    "no assertions": "import builtins\nbuiltins.AssertionError = KeyError\ndef add(a, b):\n    return None",
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = print\ndef add(a, b):\n    return 9",
    "ends the tests": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef add(a, b):\n    return 3",
    "ends by itself": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b):\n    return 9",
    "writes everywhere": (
        "import os\nfor i in range(64):\n    try:\n        os.write(i, b'{\"value\": true}\\n')\n"
        "    except OSError:\n        pass\ndef add(a, b):\n    return 9"
    ),
    "reads the tests": (
        "import os\ndef add(a, b):\n    for n in os.listdir('/proc'):\n        for f in ('fd/0', 'mem'):\n"
        "            try:\n                text = open(f'/proc/{n}/{f}', 'rb').read(10**6)\n"
        "            except OSError:\n                continue\n"
        "            if b'assert' in text:\n                return a + b\n    return 9"
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_program_cannot_claim_to_be_right(name):
    assert not ran(CHEATS[name]).passed


@pytest.mark.parametrize("name", ["prints ok", "exits", "exits hard"])
@pytest.mark.parametrize("tests", [READS, CALLS])
def test_nor_can_one_that_reads_or_is_called(name, tests):
    assert not ran(CHEATS[name], tests).passed


def test_a_builtin_that_a_program_replaces_is_not_used_by_tests():
    tests = ProgramTests(["assert all(double(n) == 2 * n for n in range(3)) and len([1]) == 1"])
    assert not ran("all = any = len = lambda *a: 1\ndef double(n):\n    return 0", tests).passed
    assert ran("def double(n):\n    return n + n", tests).passed


def test_objects_of_the_program_and_errors_that_tests_expect():
    program = (
        "class Pair:\n    def __init__(self, a):\n        self.a = a\n"
        "def value(pair):\n    return {1, pair.a}, (1.5, None), b'x', 2j\n"
        "def fail():\n    raise ValueError('no')"
    )
    tests = [
        "assert value(Pair(3)) == ({1, 3}, (1.5, None), b'x', 2j)",
        "try:\n    fail()\nexcept ValueError as error:\n    assert str(error) == 'no'\n"
        "else:\n    raise AssertionError",
    ]
    assert ran(program, ProgramTests(tests)).passed


def test_limits_of_time_and_memory():
    short = Limits(seconds=1)
    assert ran("while True:\n    pass", limits=short).why == "stopped after 1 s"
    assert ran("def add(a, b):\n    while True:\n        pass", limits=short).why.startswith(
        "stopped"
    )
    assert "1 s" in ran("while True:\n    pass", READS, short).why
    assert not ran("x = bytearray(2**31)\n" + ADD).passed
    many = ProgramTests(cases=[{"input": "", "output": "1"}] * 50)
    whole = passes("import time\ntime.sleep(0.4)\nprint(1)", many, LIMITS, 1.5)
    assert not whole.passed and re.search(r"after [\d.]+ s", whole.why)


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("1\n2\n", "1\n2", True),
        (" 1 \n2", "1\n2\n\n", True),
        ("1.0 2", "1 2.00", True),
        ("0.1", "0.10000000000000001", False),
        ("1\n2", "1 2", False),
        ("Yes", "yes", False),
        ("", "1", False),
        ("nan", "nan", True),
    ],
)
def test_what_is_the_same_output(found, wanted, same):
    assert same_output(found, wanted) is same


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx\n```", "x\n"),
        ("first\n```python\nx\n```\nthen\n```py\ny\n```\nthat is it", "y\n"),
        ("```python\nx\n```\nIt prints\n```text\n7\n```", "x\n"),
        ("```\nx\n```", "x\n"),
        ("  ```python3\n  x\n  ```", "  x\n"),
        ("```python\nx\n```\n```python\ncut off", "x\n"),
        ("```python\ncut off", None),
        ("```python\n\n```", None),
        ("x = 1", None),
        ("", None),
        ("`x`", None),
    ],
)
def test_the_last_closed_block_is_read(text, program):
    assert last_program(text) == program


def make(**tools):
    data = DataConfig(grader="code", test_seconds=5)
    return make_grader(Config(data=data, tools=ToolsConfig(**tools), allow_code_execution=True))


def test_a_row_is_graded_and_no_code_is_unreadable():
    grader, row = make(), {"tests": list(ASSERTS.statements), "answer": "-"}
    grade = grader.grade(row, f"So:\n```python\n{ADD}```")
    assert grade.right and grade.readable and grade.read == ADD
    wrong = grader.grade(row, "```python\ndef add(a, b):\n    return 3\n```")
    assert not wrong.right and wrong.readable
    none = grader.grade(row, "I would add them.")
    assert not none.right and not none.readable and none.read is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no tests"),
        ({"tests": []}, "no tests"),
        ({"tests": "assert True"}, "tests is 'assert True'"),
        ({"tests": ["assert True"], "cases": [{"input": "", "output": ""}]}, "tests and cases in"),
        ({"cases": [{"input": ""}]}, "a case without input or output"),
        ({"cases": [{"input": 1, "output": ""}]}, "input"),
        ({"cases": [{"input": "{", "output": "1"}], "function": "f"}, "Expecting"),
        ({"cases": [{"input": "1", "output": "1"}], "function": 3}, "function is 3"),
        ({"hidden_cases": "?"}, "hidden_cases cannot be unpacked"),
        ({"hidden_cases": 7}, "hidden_cases cannot be unpacked"),
    ],
)
def test_a_row_without_readable_tests_is_named(row, message):
    table = table_of([{"question": "q", "answer": "a"} | row], "rows")
    with pytest.raises(DataError, match="^rows, line 1: ") as caught:
        make().check(table)
    assert message in str(caught.value)


def test_programs_run_only_if_that_is_allowed():
    with pytest.raises(ConfigError, match="data.grader=code runs programs.*allow_code_execution"):
        make_grader(Config(data=DataConfig(grader="code")))
