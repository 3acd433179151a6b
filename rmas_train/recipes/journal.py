"""A writer's finished texts, kept line by line, so that a killed build continues from them.

An entry's key is the hash of everything that its texts depend on: the writer, its settings and the
requests. After a change of one prompt only the changed requests are sent again. A unit is a group
of requests that are sent together. For a local writer it is a batch, because rows of a batch affect
each other's rounding; for an endpoint it is a single request. A unit is one line, complete or
absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from rmas_train.errors import DataError
from rmas_train.recipes.writing import Request, Writer, Written
from rmas_train.support.reading import check_type, parse_json


class Journal:
    """An append-only file of units; it is locked against other builds while it is open.

    Raises:
        DataError: another build uses it, or a line before the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._entries = self._read()
        except BlockingIOError as error:
            self._file.close()
            raise DataError(
                f"journal={path} is in use by another build; wait for it, or stop it."
            ) from error
        except DataError:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> list[Written] | None:
        return self._entries.get(key)

    def add(self, key: str, written: Sequence[Written]) -> None:
        """Save a unit; it is on the disk when this returns."""
        value = {"key": key, "written": [vars(w) for w in written]}
        line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._entries[key] = list(written)

    def _read(self) -> dict[str, list[Written]]:
        """The entries; an incomplete last line, left by a kill, is removed."""
        entries: dict[str, list[Written]] = {}
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self._file.truncate(sum(map(len, lines[:-1])))
            lines.pop()
        for number, line in enumerate(lines, start=1):
            try:
                value = parse_json(line.decode())
                check_type(value, dict[str, Any], "line")
                entries[str(value["key"])] = [Written(**w) for w in value["written"]]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}, line {number}: damaged ({type(error).__name__}); remove the "
                    "line, and what it held is asked for again."
                ) from error
        return entries


class Scribe:
    """A writer with its journal.

    Attributes:
        asked: number of requests to the writer, without those found in the journal.
    """

    def __init__(self, writer: Writer, journal: Journal) -> None:
        self.writer, self.journal, self.asked = writer, journal, 0
        self._identity = json.dumps(writer.describe(), sort_keys=True)

    def write(self, requests: Sequence[Request]) -> list[Written]:
        """The outcome of each request, from the journal or from the writer."""
        size = self.writer.batch_size
        units = [list(requests[i : i + size]) for i in range(0, len(requests), size)]
        keys = [self._key(unit) for unit in units]
        missing = {k: u for k, u in zip(keys, units, strict=True) if self.journal.get(k) is None}
        with ThreadPoolExecutor(max(1, self.writer.parallel)) as pool:
            futures = [pool.submit(self._ask, key, unit) for key, unit in missing.items()]
            try:
                for future in futures:
                    self.asked += future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what was under way is kept
                raise
        return [w for key in keys for w in self.journal.get(key) or []]

    def _ask(self, key: str, unit: list[Request]) -> int:
        self.journal.add(key, self.writer.write(unit, int(key[:8], 16)))
        return len(unit)

    def _key(self, unit: list[Request]) -> str:
        asked = json.dumps([vars(r) for r in unit], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(f"{self._identity}\n{asked}".encode()).hexdigest()
