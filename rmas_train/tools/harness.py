"""Tests of a program, in the sandbox; runs there as a program, after a line ``PROGRAM = '...'``.

Two processes. The child holds the program and nothing of the tests: it gets calls and answers with
plain values, as JSON. This process reads the tests after the child has begun, runs them, and alone
says whether they passed, with a word that the child never sees. So nothing that the program prints,
and no way to end itself, can say that it is right. Standard library only.
"""

import builtins
import contextlib
import ctypes
import json
import os
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

PROGRAM: str  # written in front of this text
PR_SET_DUMPABLE = 4
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}


class Opaque:
    """A value of the child that is no plain data; equal to itself alone."""

    def __init__(self, number: int, ask: Callable[..., Any]) -> None:
        self.number, self._ask = number, ask

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._ask({"object": self.number}, args, options)


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """Plain data as JSON has it; the number of anything else, as ``keep`` gives it."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of a class of its own, the plain value
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    for name, sequence in SEQUENCES.items():
        if isinstance(value, sequence):  # type: ignore[arg-type]
            return {name: [encode(one, keep) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, keep), encode(v, keep)] for k, v in value.items()]}
    if type(value).__module__.split(".")[0] == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), keep)
    return {"object": keep(value)}


def decode(value: Any, find: Callable[[int], Any]) -> Any:
    """The inverse; ``find`` has the value of a number."""
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "object":
        return find(inside)
    if kind == "complex":
        return complex(*inside)
    if kind == "bytes":
        return bytes.fromhex(inside)
    if kind == "dict":
        return {decode(k, find): decode(v, find) for k, v in inside}
    return SEQUENCES[kind](decode(one, find) for one in inside)


class Program:
    """The program, in the child: its names, and calls of them."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = os.fdopen(reads, encoding="utf-8"), os.fdopen(writes, "w")
        self.kept: list[Any] = []
        self.module = types.ModuleType("program")
        sys.modules["program"] = self.module

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept) - 1

    def serve(self) -> None:
        self.answer(self.load)
        for line in self.reads:
            self.answer(lambda line=line: self.call(**json.loads(line)))  # type: ignore[misc]

    def answer(self, action: Callable[[], Any]) -> None:
        try:
            said = {"value": encode(action(), self.keep)}
        except BaseException as error:  # of the program, which may raise anything
            said = {"error": type(error).__name__, "text": str(error)[:300]}
        self.writes.write(json.dumps(said) + "\n")
        self.writes.flush()

    def load(self) -> list[str]:
        exec(compile(PROGRAM, "program.py", "exec"), self.module.__dict__)  # noqa: F821
        return [name for name, value in vars(self.module).items() if callable(value)]

    def call(self, what: Any, method: str | None, args: Any, options: Any) -> Any:
        """Call a name or a kept object, or a method of a new object of that name."""
        find = self.kept.__getitem__
        called = find(what["object"]) if isinstance(what, dict) else vars(self.module)[what]
        called = getattr(called(), method) if method else called
        return called(*decode(args, find), **decode(options, find))


class Tests:
    """The tests, in this process; they reach the program by calls alone."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = os.fdopen(reads, encoding="utf-8"), os.fdopen(writes, "w")
        self.names: list[str] = []

    def ask(self, what: Any, args: Any, options: Any, method: str | None = None) -> Any:
        sent = {"what": what, "method": method, "args": encode(args, _number)}
        self.writes.write(json.dumps(sent | {"options": encode(options, _number)}) + "\n")
        self.writes.flush()
        return self.hear()

    def hear(self) -> Any:
        line = self.reads.readline()
        if not line:
            raise RuntimeError("the program has ended itself")
        said = json.loads(line)
        if "error" in said:
            kind = getattr(builtins, str(said["error"]), None)
            is_kind = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if is_kind and kind is not None else RuntimeError)(said.get("text"))
        return decode(said["value"], lambda number: Opaque(number, self.ask))

    def run(self, statements: list[str]) -> None:
        """Run statements in which the program's names stand for calls of them.

        Raises:
            Exception: one of them fails.
        """
        # A program must not change what a test means by `all` or `zip`.
        own = [name for name in self.names if not hasattr(builtins, name)]
        space: dict[str, Any] = {name: self._proxy(name) for name in own}
        for text in statements:
            exec(compile(text, "tests.py", "exec"), space)

    def _proxy(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self.ask(name, args, options)

    def compare(self, function: str, cases: list[dict[str, str]]) -> None:
        """Each input has a JSON value a line, and the output is one.

        Raises:
            Exception: a call fails, or gives something else.
        """
        method = function if function not in self.names else None
        for number, case in enumerate(cases):
            args = [json.loads(line) for line in case["input"].splitlines() if line.strip()]
            found = self.ask("Solution" if method else function, args, {}, method)
            assert plain(found) == json.loads(case["output"]), f"case {number}"


def _number(value: Any) -> int:
    if isinstance(value, Opaque):
        return value.number
    raise TypeError(f"a test hands over a {type(value).__name__}, which is no plain data")


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def main() -> NoReturn:
    sys.set_int_max_str_digits(0)
    with contextlib.suppress(OSError, AttributeError):  # the child cannot look into this process
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    (asks, asked), (says, said) = os.pipe(), os.pipe()
    if os.fork() == 0:
        for handle in (asked, says):
            os.close(handle)
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        Program(asks, said).serve()
        os._exit(0)
    for handle in (asks, said):
        os.close(handle)
    tests, job = Tests(says, asked), json.loads(sys.stdin.buffer.read())
    verdict = {"word": job["word"], "passed": False, "why": ""}
    try:
        tests.names = tests.hear()
        if job["function"] is None:
            tests.run(job["tests"])
        else:
            tests.compare(job["function"], job["cases"])
        verdict["passed"] = True
    except Exception as error:  # of a test, which may raise anything
        verdict["why"] = f"{type(error).__name__}: {error}"[:300]
    sys.stdout.write("\n" + json.dumps(verdict) + "\n")
    sys.stdout.flush()
    os._exit(0)


main()
