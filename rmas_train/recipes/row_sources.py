"""The source of a recipe's rows: a set on the hub, streamed, or a file with the same columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmas_train.errors import DataError
from rmas_train.support.output import one_line
from rmas_train.support.reading import parse_json

Placed = tuple[str, dict[str, Any]]  # where a row stands, and its columns
TIMEOUT = 20.0  # seconds for the hub to answer at all


@dataclass(frozen=True)
class SetCard:
    """What the hub says about a set at the time of the request."""

    revision: str | None
    licence: str | list[str] | None


@dataclass(frozen=True)
class RowSource:
    """Rows with their places, and facts about them for the manifest.

    Attributes:
        revision: the hub's commit that was read; None for a file.
        licence: as the set's card gave it; None if no card was seen.
    """

    name: str
    rows: Iterator[Placed]
    split: str | None = None
    revision: str | None = None
    licence: str | list[str] | None = None
    sha256: str | None = None

    def describe(self) -> dict[str, Any]:
        facts = {
            key: getattr(self, key) for key in ("name", "split", "revision", "licence", "sha256")
        }
        if self.licence is None:
            facts["licence_note"] = "unverified: no card was seen at build; look it up"
        return facts


def open_source(
    hub: str, config: str | None, split: str, revision: str | None, file: str | None
) -> RowSource:
    """The rows of a file if one is given, otherwise of the set on the hub.

    Raises:
        DataError: no such file; or the hub cannot be reached (names the option for a file).
    """
    if file is not None:
        path = Path(file)
        return RowSource(path.name, read_rows(path), sha256=file_sha256(path))
    card = check_hub(hub, revision)
    if card is None:
        raise DataError(
            f"{hub}: the hub could not be reached, or has no such set"
            f"{f' at revision {revision}' if revision else ''}; give a file of its rows with "
            "source=<file.jsonl or .parquet>, or set HF_TOKEN if the set is gated."
        )
    return hub_source(hub, config, split, revision, card)


def check_hub(hub: str, revision: str | None) -> SetCard | None:
    """Commit and licence of a set; None if the hub does not answer or has no such set."""
    from huggingface_hub import HfApi

    from rmas_train.support.hub_errors import HUB_ERRORS

    try:
        info = HfApi().dataset_info(hub, revision=revision, timeout=TIMEOUT)
    except HUB_ERRORS:
        return None
    data = info.card_data.to_dict() if info.card_data else {}
    return SetCard(info.sha, data.get("license"))


def hub_source(
    hub: str, config: str | None, split: str, revision: str | None, card: SetCard
) -> RowSource:
    """A set on the hub, row by row, at the commit that was found for it."""
    from datasets import load_dataset

    commit = card.revision or revision

    def rows() -> Iterator[Placed]:
        try:
            stream = load_dataset(hub, config, split=split, revision=commit, streaming=True)
            for number, row in enumerate(stream):
                yield f"{hub}, split {split}, row {number}", dict(row)
        except Exception as error:  # of many libraries, from the network to the file's format
            raise DataError(
                f"{hub}, config {config}, split {split}: {type(error).__name__}: "
                f"{one_line(error)}; check config, split and network, and start again."
            ) from error

    name = hub if config is None else f"{hub}/{config}"
    return RowSource(name, rows(), split, commit, card.licence)


def read_rows(path: Path) -> Iterator[Placed]:
    """Rows of a JSONL, JSON (a list) or Parquet file.

    Raises:
        DataError: names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file in {Path.cwd()}; check the path.")
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: unknown kind of file; give .jsonl, .json (a list) or .parquet.")
    return readers[path.suffix](path)


def file_sha256(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file in {Path.cwd()}; check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

    try:
        for batch in ParquetFile(path).iter_batches(batch_size=64):
            for number, row in enumerate(batch.to_pylist()):
                yield f"{path}, row {number}", row
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet ({one_line(error)}); check the file.") from error


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
