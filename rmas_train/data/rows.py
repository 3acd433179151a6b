"""Rows of a file: read, checked, and named by file and line in every error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rmas_train.data.files import read_rows, renamed
from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.reading import parse_json, short

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of one file. ``rounds_needed`` is a column that any data set may have.

    Attributes:
        path: of the file; for rows that never were in a file, what to call them.
        digest: sha256 of such rows; None: that of the file.
    """

    path: Path
    rows: list[Row]
    digest: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        return f"{self.path}, line {self.rows[index].get('_line', index + 1)}"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the file, or of the rows."""
        return self.digest or hashlib.sha256(self.path.read_bytes()).hexdigest()

    def rounds_needed(self, index: int) -> int | None:
        return self.rows[index].get("rounds_needed")

    def rounds_most(self, index: int) -> int | None:
        return self.rows[index].get("rounds_most")

    def require(self, columns: Iterable[str], why: str) -> None:
        """Every row has these columns, as text.

        Raises:
            DataError: names the line, the column and its value.
        """
        wanted = sorted(columns)
        for i, row in enumerate(self.rows):
            missing = [c for c in wanted if c not in row]
            if missing:
                names = ", ".join(f"'{c}'" for c in missing)
                hint = did_you_mean(missing[0], [k for k in row if k != "_line"])
                raise DataError(f"{self.where(i)}: no text column {names} ({why}). {hint}")
            for column in wanted:
                check_text(row, column, self.where(i), why)

    def require_answers(self) -> None:
        """Every row has an answer that is not blank.

        Raises:
            DataError: names the line and the value.
        """
        self.require(["answer"], ANSWER)
        for i, row in enumerate(self.rows):
            check_answer(row, self.where(i))


def is_within_reach(row: Mapping[str, Any], rounds: int) -> bool:
    """Whether so many rounds can give the row's answer, as far as its columns say.

    ``rounds_needed``: fewer are not enough. ``rounds_most``: more lead past the answer, where every
    round goes on.
    """
    return is_between(row.get("rounds_needed"), row.get("rounds_most"), rounds)


def is_between(least: int | None, most: int | None, rounds: int) -> bool:
    """Whether a depth is in these bounds; None: there is no bound."""
    return (least or 1) <= rounds and (most is None or rounds <= most)


ANSWER = "what the decoder should write"
OTHER_FILES = (".json", ".parquet", ".csv")
KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list"}


def check_text(row: Mapping[str, Any], column: str, where: str, why: str) -> None:
    """A column holds a text.

    Raises:
        DataError: it holds something else: the value and its type.
    """
    value = row.get(column)
    if isinstance(value, str):
        return
    if column not in row:
        raise DataError(f"{where}: no text column '{column}' ({why}).")
    seen = "null" if value is None else f"{_json(value)}, {KINDS.get(type(value), 'an object')}"
    is_plain = isinstance(value, int | float) and value == value
    remedy = f'write "{_json(value)}", in quotes' if is_plain else "give a text"
    raise DataError(f"{where}: column '{column}' is {seen}, not a text ({why}); {remedy}.")


def check_answer(row: Mapping[str, Any], where: str) -> None:
    """``answer`` holds a text that is not blank.

    Raises:
        DataError: it does not.
    """
    check_text(row, "answer", where, ANSWER)
    if not row["answer"].strip():
        raise DataError(
            f"{where}: column 'answer' is blank, {short(row['answer'])} ({ANSWER}); fill it in, or "
            "leave the row out."
        )


def _json(value: Any) -> str:
    """A value as its file has it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> Table:
    """Read a JSONL, JSON, Parquet or CSV file; a file of another name is read as JSONL.

    Args:
        path: of the file.
        columns: our column -> theirs (``data.columns``).

    Raises:
        DataError: missing or empty file, a line that is not a JSON object, a column that is not
            there, a row without a question, a ``rounds_needed`` that is not a whole number of 1 or
            more.
    """
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{path}: no such file{where}; set data.folder, data.train and data.test.")
    read = _other_file if path.suffix in OTHER_FILES else _lines
    rows = list(read(path, columns or {}))
    if not rows:
        raise DataError(f"{path}: the file has no rows; write one JSON object per line.")
    return Table(path, rows)


def _lines(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(path, number, line, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); convert the file.") from error


def _other_file(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    for number, (_, row) in enumerate(read_rows(path), start=1):
        yield _checked(renamed(row, columns, f"{path}, line {number}"), path, number)


def _parse(path: Path, number: int, line: str, columns: Mapping[str, str] | None = None) -> Row:
    where = f"{path}, line {number}"
    try:
        row = parse_json(line)
    except ValueError as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg}, column {error.colno}"
        raise DataError(f"{where}: not JSON ({reason}); write one JSON object per line.") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: a {type(row).__name__}, not a JSON object with named columns; write one "
            "JSON object per line."
        )
    return _checked(renamed(row, columns, where) if columns else row, path, number)


def _checked(row: Row, path: Path, number: int) -> Row:
    """The row with its number; what every row needs is there."""
    where = f"{path}, line {number}"
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataError(
            f"{where}: no question (column 'question' is {short(question)}); fill it in."
        )
    needed = row.get("rounds_needed", 1)
    if not isinstance(needed, int) or isinstance(needed, bool) or needed < 1:
        raise DataError(
            f"{where}: rounds_needed is {short(needed)}; give a whole number, 1 or more."
        )
    most = row.get("rounds_most", needed)
    if not isinstance(most, int) or isinstance(most, bool) or most < needed:
        raise DataError(
            f"{where}: rounds_most is {short(most)}; give a whole number, {needed} or more "
            "(rounds_needed)."
        )
    return row | {"_line": number}


def table_of(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Rows given in Python, checked as those of a file are; ``name`` stands for the file's.

    Raises:
        DataError: as ``read_table``.
    """
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise DataError(f"{name} is {short(rows)}; give a list of rows with named columns.")
    lines = []
    for i, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, line {i}: {short(row)}; give named columns, a dict.")
        try:
            lines.append(json.dumps(dict(row), ensure_ascii=False))
        except (TypeError, ValueError) as error:
            raise DataError(f"{name}, line {i}: {error}; give texts and numbers.") from error
    if not lines:
        raise DataError(f"{name}: no rows; give one or more.")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    path = Path(name)
    return Table(path, [_parse(path, i, line) for i, line in enumerate(lines, start=1)], digest)
