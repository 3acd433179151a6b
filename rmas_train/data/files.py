"""Rows of a file, with the place of each: JSON lines, a JSON list, Parquet or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rmas_train.errors import DataError, did_you_mean
from rmas_train.support.output import one_line
from rmas_train.support.reading import parse_json, short

Placed = tuple[str, dict[str, Any]]  # where a row stands, and its columns
LONGEST_CELL = 2**27  # characters of a cell in a CSV file; the library's own limit is 2**17


def read_rows(path: Path) -> Iterator[Placed]:
    """Rows of a JSONL, JSON (a list), Parquet or CSV file.

    Raises:
        DataError: names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file in {Path.cwd()}; check the path.")
    if path.suffix not in READERS:
        raise DataError(
            f"{path}: unknown kind of file; give .jsonl, .json (a list), .parquet or .csv."
        )
    return READERS[path.suffix](path)


def parse_lines(lines: Iterable[str], name: str) -> Iterator[Placed]:
    """Rows of JSON lines; ``name`` is that of their file, for messages."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name}, line {number}"
            yield where, check_row(parse_text(where, line), where)


def _jsonl(path: Path) -> Iterator[Placed]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from parse_lines(lines, str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); convert the file.") from error


def _json(path: Path) -> Iterator[Placed]:
    try:
        value = parse_text(str(path), path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); convert the file.") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: a {type(value).__name__}, not a list of rows; write a list.")
    for number, row in enumerate(value):
        yield f"{path}, row {number}", check_row(row, f"{path}, row {number}")


def _parquet(path: Path) -> Iterator[Placed]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                yield f"{path}, row {number}", row
                number += 1
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet ({one_line(error)}); check the file.") from error


def _csv(path: Path) -> Iterator[Placed]:
    """The first line names the columns; every cell is text."""
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(csv.DictReader(lines, strict=True)):
                where = f"{path}, row {number}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: another number of cells than the {len(row)} columns of the "
                        "first line; mend the row."
                    )
                yield where, dict(row)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); convert the file.") from error
    except csv.Error as error:
        raise DataError(f"{path}: not CSV ({one_line(error)}); mend the file.") from error


READERS: Mapping[str, Callable[[Path], Iterator[Placed]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
}


def parse_text(where: str, text: str) -> Any:
    """JSON.

    Raises:
        DataError: it is none; names the place.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg}, column {error.colno}"
        raise DataError(f"{where}: not JSON ({reason}); write one JSON object per line.") from error


def check_row(value: Any, where: str) -> dict[str, Any]:
    """An object with named columns.

    Raises:
        DataError: something else; names the place.
    """
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: a {type(value).__name__}, not an object with named columns; fix the row."
        )
    return value


def renamed(
    row: Mapping[str, Any], columns: Mapping[str, str], where: str, option: str = "data.columns"
) -> dict[str, Any]:
    """The row with our columns in addition; a number in one of them becomes text.

    Args:
        row: as its file has it.
        columns: our column -> theirs.
        where: the row's place.
        option: that gives them, for messages.

    Raises:
        DataError: there is no such column, or it holds no text and no number.
    """
    found = dict(row)
    for ours, theirs in columns.items():
        if theirs not in row:
            near = did_you_mean(theirs, [name for name in row if name != "_line"])
            raise DataError(
                f"{where}: no column '{theirs}', which {option} names for '{ours}'. {near}"
            )
        value = row[theirs]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(
                f"{where}: column '{theirs}' ({option}: {ours}) is {short(value)}, no text and "
                "no number; name another column, or mend the row."
            )
        found[ours] = value if isinstance(value, str) else str(value)
    return found
