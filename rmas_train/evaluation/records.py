"""One record per question, system, depth and sample, on disk as soon as it is there.

Every rank appends to a file of its own. An evaluation that is killed goes on from what all of these
files hold, on any number of ranks: a record is used if it is of the same row (by hash) and, where a
system mixes rows, of the same rows around it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from rmas_train.runs.load import hash_of
from rmas_train.support.contained import open_here
from rmas_train.support.files import write_json, writing
from rmas_train.support.reading import check_type, parse_json

Record = dict[str, Any]


class CallTypes(TypedDict):
    """Of a tool call in a record."""

    refused: bool


class RecordExtras(TypedDict, total=False):
    """What some records have."""

    calls: list[CallTypes]
    score: float
    sample: int
    prompt_tokens: int
    peak_gib: float
    question: str


class RecordTypes(RecordExtras):
    """Types of a record."""

    task: str
    system: str
    control: str | None
    rounds: int
    latent_length: int
    index: int
    hash: str
    group: str | None
    text: str
    right: bool
    readable: bool
    read: str | None
    tokens: int
    latent_steps: int
    seconds: float


Key = tuple[str, str, str | None, int, int, int]
IDENTITY = "identity.json"


def key_of(record: Mapping[str, Any]) -> Key:
    """Task, system, control, rounds, index of the row, sample."""
    return (
        record["task"],
        record["system"],
        record["control"],
        record["rounds"],
        record["index"],
        record.get("sample", 0),
    )


def row_hash(row: Mapping[str, Any]) -> str:
    return hash_of({key: value for key, value in row.items() if not key.startswith("_")})


class Records:
    """The records of one evaluation.

    Args:
        folder: where they are kept while the evaluation runs.
        identity: what they depend on, but rows and systems; a folder of another one is emptied.
        rank: of this process.
        earlier: records of a finished evaluation of the same identity.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], rank: int, earlier: Iterable[Record] = ()
    ) -> None:
        self._folder, self._file = folder, folder / f"rank-{rank}.jsonl"
        self._known = {key_of(record): record for record in earlier}
        if rank == 0:
            _prepare(folder, identity)

    def load(self) -> None:
        """Read what all ranks have written; after rank 0 has prepared the folder."""
        for path in sorted(self._folder.glob("rank-*.jsonl")):
            self._known |= {key_of(record): record for record in read_records(path)}

    def get(self, about: Mapping[str, Any]) -> Record | None:
        """The record of this task, system, depth and row, where it is of the same content."""
        found = self._known.get(key_of(about))
        if found is None or any(found[key] != about[key] for key in ("hash", "group")):
            return None
        return found

    def every(self) -> Iterable[Record]:
        """All that are known."""
        return self._known.values()

    def add(self, records: Iterable[Record]) -> None:
        """Append and flush to the disk, all of these or, after a kill, the first of them.

        Raises:
            WriteError: they cannot be written.
        """
        records = list(records)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with writing(self._file), open_here(self._file, "a") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._known |= {key_of(record): record for record in records}


def read_records(path: Path) -> Iterator[Record]:
    """Of a JSONL file, if it is there; what is no whole record is left out, to be made again.

    So is a last line that was cut off, and records of versions that kept less.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = parse_json(line)
                check_type(record, RecordTypes, "")
            except ValueError:
                continue
            if line.endswith("\n"):
                yield record


def _prepare(folder: Path, identity: Mapping[str, Any]) -> None:
    """An empty folder, or one with records of the same identity; what was cut off is removed."""
    said = folder / IDENTITY
    folder.mkdir(parents=True, exist_ok=True)
    try:
        is_same = parse_json(said.read_text(encoding="utf-8")) == identity
    except (OSError, ValueError):
        is_same = False
    for path in folder.glob("rank-*.jsonl"):
        if is_same:
            _mend(path)
        else:
            path.unlink()
    if not is_same:
        write_json(said, dict(identity))


def _mend(path: Path) -> None:
    """Cut off a last line that is not whole, so that the next one does not continue it."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("rb+") as file:
            file.truncate(end)
