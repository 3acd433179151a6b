"""Training rows whose answers are those of the text system (``training.outer.answers_of``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rmas_train.data.rows import Table
from rmas_train.errors import DataError
from rmas_train.evaluation.records import read_records, row_hash
from rmas_train.runs.load import Loaded, hash_of
from rmas_train.support.output import say

RECORDS = "answers.jsonl"


def with_text_answers(loaded: Loaded) -> Loaded:
    """The run with the answers that text recursion gave to its training rows, at the largest depth.

    Rows that it was not asked, or left without an answer, are left out.

    Raises:
        DataError: the folder has no such answers.
    """
    named = str(loaded.config.training.outer.answers_of)
    folder = Path(named)
    path = folder / RECORDS if (folder / RECORDS).is_file() else folder / "eval" / RECORDS
    texts = text_answers(path)
    rows = []
    for row in loaded.train.rows:
        text = texts.get(row_hash(row), "")
        if text.strip():
            rows.append(row | {"answer": text})
    if not rows:
        raise DataError(
            f"training.outer.answers_of={named}: {path} has no answer of text recursion to a row "
            f"of {loaded.train.path}; evaluate these rows with stage=eval data.test="
            f"{loaded.train.path.name} evaluation.systems=[text]."
        )
    say(f"answers of text recursion: {len(rows)} of {len(loaded.train)} training rows, {path}")
    digest = hash_of([[row_hash(row), row["answer"]] for row in rows])
    train = Table(loaded.train.path, rows, digest)
    return replace(loaded, tables=replace(loaded.tables, train=train))


def text_answers(path: Path) -> dict[str, str]:
    """Hash of a row -> what text recursion answered in the most rounds it was asked for."""
    found: dict[str, tuple[int, str]] = {}
    for record in read_records(path):
        is_first = record.get("sample", 0) == 0
        if record["system"] != "text" or record["control"] is not None or not is_first:
            continue
        known = found.get(record["hash"])
        if known is None or record["rounds"] > known[0]:
            found[record["hash"]] = record["rounds"], record["text"].strip()
    return {key: text for key, (_, text) in found.items()}
