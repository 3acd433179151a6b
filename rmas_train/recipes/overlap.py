"""Contamination: does a training text share a run of words with a question of an evaluation set?

Words are runs of letters, digits and ``_`` after Unicode's NFKC and case folding, so punctuation,
LaTeX's signs and spacing do not matter. A text is contaminated if it contains any ``n`` words in a
row of an evaluation question (default 13). A question of fewer words is compared as a whole with
whole texts. Short runs are common language, and would remove rows that are not contaminated.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rmas_train.data.files import read_rows
from rmas_train.errors import ConfigError, ContaminationWarning, DataError
from rmas_train.recipes.row_sources import check_hub, file_sha256, hub_source

NGRAM = 13
QUESTIONS = ("question", "problem", "Question", "prompt", "input", "question_content")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


class Overlap:
    """The runs of words of the evaluation questions.

    Attributes:
        report: per evaluation set, what was checked and how many training rows were dropped.
    """

    def __init__(self, n: int = NGRAM) -> None:
        if n < 1:
            raise ConfigError(f"ngram={n}: give 1 or more words.")
        self.n = n
        self.report: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, str] = {}
        self._whole: dict[str, str] = {}

    def add(self, name: str, questions: Iterable[str]) -> int:
        """Index an evaluation set; returns its number of questions."""
        count = 0
        for question in questions:
            count += 1
            found = words(question)
            for run in self._windows(found):
                self._runs.setdefault(run, name)
            if found and len(found) < self.n:
                self._whole.setdefault(" ".join(found), name)
        return count

    def find(self, text: str) -> str | None:
        """The evaluation set that a text overlaps with, or None."""
        found = words(text)
        if (name := self._whole.get(" ".join(found))) is not None:
            return name
        return next((self._runs[r] for r in self._windows(found) if r in self._runs), None)

    def is_clean(self, texts: Iterable[str]) -> bool:
        """Whether no text overlaps; counts the row under the set that it overlaps with."""
        for text in texts:
            if (name := self.find(text)) is not None:
                self.report[name]["rows_dropped"] += 1
                return False
        return True

    def _windows(self, found: Sequence[str]) -> Iterable[str]:
        return (" ".join(found[i : i + self.n]) for i in range(len(found) - self.n + 1))

    def summary(self) -> dict[str, Any]:
        """For the manifest; ``not checked`` is never called clean."""
        states = Counter(entry["status"] for entry in self.report.values())
        status = "checked" if states["checked"] else "not checked"
        if states["checked"] and states["not checked"]:
            status = "partly checked"
        return {"status": status, "ngram": self.n, "evaluation_sets": self.report}


def index_evaluations(names: Sequence[str], n: int) -> Overlap:
    """Index evaluation sets; a set that cannot be read is ``not checked``, with a warning.

    Args:
        names: files (``eval.jsonl``, or ``eval.jsonl:column``) and hub ids (``id`` or
            ``id/config@split``, split ``test`` by default).
        n: words in a row.

    Raises:
        DataError: a file that is missing or has no column with questions.
    """
    overlap = Overlap(n)
    for name in names:
        overlap.report[name] = entry = {"status": "checked", "rows_dropped": 0}
        try:
            questions = _file(name, entry) if _is_file(name) else _hub(name, entry)
        except LookupError as error:
            entry["status"], entry["reason"] = "not checked", str(error.args[0])
            _warn(f"{name} ({error.args[0]})")
            continue
        entry["questions"] = overlap.add(name, questions)
    if not names:
        _warn("no evaluation set was named")
    return overlap


def _warn(what: str) -> None:
    warnings.warn(
        f"contamination not checked against {what}; give the questions as a file with "
        "evaluation=<file.jsonl>.",
        ContaminationWarning,
        stacklevel=3,
    )


def _is_file(name: str) -> bool:
    return Path(name.rpartition(":")[0] or name).suffix in (".jsonl", ".json", ".parquet")


def _file(name: str, entry: dict[str, Any]) -> list[str]:
    path, _, column = name.partition(":")
    entry["sha256"] = file_sha256(Path(path))
    return [_question(row, column, where) for where, row in read_rows(Path(path))]


def _hub(name: str, entry: dict[str, Any]) -> list[str]:
    """Questions of a hub set. Raises LookupError if the hub has no such set or does not answer."""
    where, _, split = name.partition("@")
    hub, config = "/".join(where.split("/")[:2]), "/".join(where.split("/")[2:]) or None
    card = check_hub(hub, None)
    if card is None:
        raise LookupError("the hub could not be reached, or has no such set")
    source = hub_source(hub, config, split or "test", None, card)
    entry["revision"] = source.revision
    try:
        return [_question(row, "", place) for place, row in source.rows]
    except DataError as error:
        raise LookupError(str(error)) from error


def _question(row: dict[str, Any], column: str, where: str) -> str:
    names = [column] if column else [c for c in QUESTIONS if c in row]
    if not names or not isinstance(row.get(names[0]), str):
        raise DataError(
            f"{where}: no text column {column or 'with a question'}; found: {', '.join(row)}. Name "
            "it: evaluation=<file.jsonl>:<column>."
        )
    return str(row[names[0]])
