"""Strings that a Python file builds, without running it: for a user's copy of released prompts.

The file is parsed. Its functions are followed by an interpreter that knows strings, comparisons and
branches, and nothing that reads, writes or imports. Texts of a row are placeholders; a test of one
(a regular expression, a phrase, whether it is there) is answered by an assumption, and asked for
once with either answer, so that every text that the file can build is found.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmas_train.errors import DataError

DEPTH, STEPS, LENGTH = 30, 20_000, 200_000  # nested calls, nodes looked at, characters built
MOST_BYTES = 2_000_000
STRING_METHODS = ("strip", "lstrip", "rstrip", "lower", "upper", "replace")


@dataclass(frozen=True)
class Test:
    """A question about a row's text.

    ``kind``: ``search`` (a pattern is found), ``contains`` (a phrase, whatever its case),
    ``one_of`` (values with | between them, whatever their case) or ``given`` (is there, not empty).
    """

    column: str
    kind: str
    value: str = ""


class Text(str):
    """A row's text: a placeholder that knows its column."""

    column: str

    def __new__(cls, column: str) -> Text:
        made = super().__new__(cls, f"<<{column}>>")
        made.column = column
        return made


Assumed = dict[Test, bool]


class UndecidedError(Exception):
    """A test that no assumption answers."""

    def __init__(self, test: Test) -> None:
        self.test = test


class _ReturnError(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class PythonFile:
    """The functions and the string constants of a parsed file.

    Attributes:
        path: named in errors.
        constants: module's names with their values.
        functions: name -> definition.
    """

    path: Path
    constants: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)

    def every(self, name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[Assumed, str]]:
        """Each text that the function can return, with the assumptions that lead to it.

        Raises:
            DataError: no such function, or it does what is not understood; names the line.
        """
        open_: list[Assumed] = [{}]
        while open_:
            assumed = open_.pop()
            try:
                value = Evaluation(self, assumed).call(name, (), arguments)
            except UndecidedError as undecided:
                open_ += [assumed | {undecided.test: answer} for answer in (False, True)]
                if len(open_) > 64:
                    raise DataError(
                        f"{self.path}: {name} asks too many questions about a row; it is not the "
                        "file that this converter knows."
                    ) from undecided
                continue
            if not isinstance(value, str):
                raise DataError(f"{self.path}: {name} returns {value!r}, not a text.")
            yield assumed, str(value)


def read_python(path: Path) -> PythonFile:
    """Parse a file.

    Raises:
        DataError: it cannot be read, or is not Python.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: larger than {MOST_BYTES} bytes; give a prompts.py.")
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read as Python ({error}); copy it again.") from error
    made = PythonFile(path)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            made.functions[node.name] = node
        elif isinstance(node, ast.Assign):
            _keep_constant(made, node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            beside = path.parent.joinpath(*node.module.split(".")).with_suffix(".py")
            if beside.is_file():
                found = read_python(beside).constants
                made.constants |= {a.asname or a.name: found.get(a.name) for a in node.names}
    return made


def _keep_constant(file: PythonFile, node: ast.Assign) -> None:
    """What is not understood is left out; asking for it later is an error that names it."""
    try:
        value = Evaluation(file, {}).value(node.value, {})
    except (DataError, UndecidedError):
        return
    for target in node.targets:
        if isinstance(target, ast.Name):
            file.constants[target.id] = value


class Evaluation:
    """One run of a function, under assumptions about the row.

    Args:
        file: that is read.
        assumed: answers to tests.
    """

    def __init__(self, file: PythonFile, assumed: Mapping[Test, bool]) -> None:
        self._file, self._assumed = file, assumed
        self._depth = self._steps = 0

    def call(self, name: str, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        node = self._file.functions.get(name)
        if node is None:
            raise DataError(
                f"{self._file.path}: has no function {name}; give the prompts.py of the release."
            )
        names = [argument.arg for argument in node.args.args]
        values = dict(zip(names, given, strict=False)) | dict(named)
        defaults = node.args.defaults
        for argument, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
            values.setdefault(argument, self.value(default, {}))
        if unknown := set(values) ^ set(names):
            raise self._error(node, f"{name} is called without or with unknown {sorted(unknown)}")
        self._depth += 1
        if self._depth > DEPTH:
            raise self._error(node, f"{name} calls itself too often")
        try:
            self._run(node.body, values)
        except _ReturnError as done:
            return done.value
        finally:
            self._depth -= 1
        return None

    def _run(self, body: list[ast.stmt], names: dict[str, Any]) -> None:
        for node in body:
            match node:
                case ast.Return(value):
                    raise _ReturnError(None if value is None else self.value(value, names))
                case ast.If(test, then, otherwise):
                    self._run(then if self._truth(test, names) else otherwise, names)
                case ast.Assign([ast.Name(name)], value):
                    names[name] = self.value(value, names)
                case ast.Expr(ast.Constant()) | ast.Pass():
                    pass
                case _:
                    raise self._error(node, f"{type(node).__name__.lower()} is not understood")

    def _truth(self, node: ast.expr, names: Mapping[str, Any]) -> bool:
        value = self.value(node, names)
        if isinstance(value, Text):
            return self._ask(Test(value.column, "given"))
        return bool(value)

    def _ask(self, test: Test) -> bool:
        if test not in self._assumed:
            raise UndecidedError(test)
        return self._assumed[test]

    def value(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        """An expression's value."""
        self._steps += 1
        if self._steps > STEPS:
            raise self._error(node, "too long to follow")
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return self._named(node, name, names)
            case ast.JoinedStr(values):
                return self._short(node, "".join(self._piece(part, names) for part in values))
            case ast.BinOp(left, ast.Add(), right):
                both = self.value(left, names), self.value(right, names)
                if not all(isinstance(one, str) for one in both):
                    raise self._error(node, "adds what is no text")
                return self._short(node, both[0] + both[1])
            case ast.Dict(keys, values):
                pairs = zip(keys, values, strict=True)
                return {self.value(k, names): self.value(v, names) for k, v in pairs if k}
            case ast.Set(items) | ast.Tuple(items) | ast.List(items):
                return tuple(self.value(item, names) for item in items)
            case ast.Subscript(of, key):
                return self._item(node, self.value(of, names), self.value(key, names))
            case ast.Attribute(of, name):
                return self._item(node, self.value(of, names), name)
            case ast.IfExp(test, then, otherwise):
                return self.value(then if self._truth(test, names) else otherwise, names)
            case ast.UnaryOp(ast.Not(), operand):
                return not self._truth(operand, names)
            case ast.BoolOp(operator, operands):
                return self._first_of(operator, operands, names)
            case ast.Compare(left, [operator], [right]):
                return self._compare(node, operator, left, right, names)
            case ast.Call():
                return self._called(node, names)
        raise self._error(node, f"{type(node).__name__.lower()} is not understood")

    def _piece(self, node: ast.expr, names: Mapping[str, Any]) -> str:
        match node:
            case ast.Constant(value):
                return str(value)
            case ast.FormattedValue(value, -1, None):
                return str(self.value(value, names))
        raise self._error(node, "a format is not understood")

    def _named(self, node: ast.expr, name: str, names: Mapping[str, Any]) -> Any:
        for known in (names, self._file.constants):
            if name in known:
                return known[name]
        raise self._error(node, f"{name} is not known")

    def _item(self, node: ast.expr, of: Any, key: Any) -> Any:
        if isinstance(of, dict) and key in of:
            return of[key]
        raise self._error(node, f"has no {key!r}")

    def _first_of(
        self, operator: ast.boolop, operands: list[ast.expr], names: Mapping[str, Any]
    ) -> Any:
        """``a or b``, ``a and b``: the value that decides."""
        stops_at = isinstance(operator, ast.Or)
        for operand in operands[:-1]:
            if self._truth(operand, names) == stops_at:
                return self.value(operand, names)
        return self.value(operands[-1], names)

    def _compare(
        self,
        node: ast.expr,
        operator: ast.cmpop,
        left: ast.expr,
        right: ast.expr,
        names: Mapping[str, Any],
    ) -> bool:
        a, b = self.value(left, names), self.value(right, names)
        match operator:
            case ast.Eq() | ast.NotEq():
                return (a == b) == isinstance(operator, ast.Eq)
            case ast.Is() | ast.IsNot():
                return (a is b) == isinstance(operator, ast.Is)
            case ast.In() | ast.NotIn():
                if isinstance(b, Text):
                    found = self._ask(Test(b.column, "contains", str(a)))
                elif isinstance(a, Text):
                    found = self._ask(Test(a.column, "one_of", "|".join(map(str, b))))
                else:
                    found = a in b
                return found == isinstance(operator, ast.In)
        raise self._error(node, "a comparison is not understood")

    def _called(self, node: ast.Call, names: Mapping[str, Any]) -> Any:
        given = tuple(self.value(argument, names) for argument in node.args)
        named = {k.arg: self.value(k.value, names) for k in node.keywords if k.arg}
        match node.func:
            case ast.Name(name) if name in self._file.functions:
                return self.call(name, given, named)
            case ast.Name(name) if name in _BUILTINS and not named:
                return self._builtin(name, given)
            case ast.Attribute(ast.Name("re"), "search") if isinstance(given[1], Text):
                return self._ask(Test(given[1].column, "search", str(given[0])))
            case ast.Attribute(of, method) if method in STRING_METHODS:
                return self._method(node, self.value(of, names), method, given)
        raise self._error(node, f"a call of {ast.unparse(node.func)} is not understood")

    def _builtin(self, name: str, given: tuple[Any, ...]) -> Any:
        if name == "bool" and isinstance(given[0], Text):
            return self._ask(Test(given[0].column, "given"))
        if name == "str" and isinstance(given[0], Text):
            return given[0]
        return _BUILTINS[name](*given)

    def _method(self, node: ast.expr, of: Any, method: str, given: tuple[Any, ...]) -> Any:
        if isinstance(of, Text) and method != "replace":
            return of  # a row's own text: what a test of it asks does not depend on its case
        if not isinstance(of, str):
            raise self._error(node, f"{method} of what is no text")
        return self._short(node, getattr(of, method)(*given))

    def _short(self, node: ast.expr, text: str) -> str:
        if len(text) > LENGTH:
            raise self._error(node, "builds a very long text")
        return text

    def _error(self, node: ast.AST, why: str) -> DataError:
        return DataError(
            f"{self._file.path}, line {getattr(node, 'lineno', 0)}: {why}; give the prompts.py of "
            "the release as it is."
        )


def _attribute(of: Any, name: str, default: Any = None) -> Any:
    return of.get(name, default) if isinstance(of, dict) else default


_BUILTINS: dict[str, Callable[..., Any]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "getattr": _attribute,
}
