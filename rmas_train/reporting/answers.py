"""Answers to read: some questions, right and wrong ones, with what every system wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypedDict

from rmas_train.support.output import clean
from rmas_train.support.reading import check_type, parse_json
from rmas_train.systems.looks import system_name

EACH = 5  # questions that the latent system answers right, and as many that it does not
LONGEST = 400  # characters of a text that are shown


class Shown(TypedDict):
    """Of a record, as far as it is shown."""

    task: str
    system: str
    control: str | None
    rounds: int
    index: int
    text: str
    right: bool
    readable: bool


Record = dict[str, Any]
Question = tuple[str, int]  # task, index


def read_answers(run: Path) -> dict[Question, list[Record]]:
    """The records of chosen questions of a run, at the largest depth, in the order of the file.

    Lines that are no records are left out, and so are all but the first sample.
    """
    path = run / "eval" / "answers.jsonl"
    if not path.is_file():
        return {}
    deepest: dict[str, int] = {}
    for record in _records(path):
        deepest[record["task"]] = max(record["rounds"], deepest.get(record["task"], 0))
    wanted = _choose(r for r in _records(path) if r["rounds"] == deepest[r["task"]])
    found: dict[Question, list[Record]] = {question: [] for question in wanted}
    for record in _records(path):
        who = record["task"], record["index"]
        if who in found and record["rounds"] == deepest[record["task"]]:
            found[who].append(record)
    return found


def _records(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = parse_json(line)
                check_type(record, Shown, "")
            except ValueError:
                continue
            if record.get("sample", 0) == 0:
                yield record


def _choose(records: Iterator[Record]) -> list[Question]:
    """The first questions of each task that the latent system answers right, and wrong."""
    counts: dict[tuple[str, bool], int] = {}
    chosen = []
    for record in records:
        if (record["system"], record["control"]) != ("latent", None):
            continue
        kind = record["task"], record["right"]
        if counts.get(kind, 0) < EACH:
            counts[kind] = counts.get(kind, 0) + 1
            chosen.append((record["task"], record["index"]))
    return sorted(chosen)


def answers_section(answers: Mapping[str, Mapping[Question, Sequence[Record]]]) -> str:
    """A part of the page; nothing where no run has answers.

    Args:
        answers: run -> its ``read_answers``.
    """
    blocks = [
        _block(run if len(answers) > 1 else "", question, records)
        for run, found in answers.items()
        for question, records in found.items()
    ]
    return f"<h2>Answers</h2>{''.join(blocks)}" if blocks else ""


def _block(run: str, question: Question, records: Sequence[Record]) -> str:
    first, (task, index) = records[0], question
    asked = first.get("question")
    title = f"{run} {task}, question {index}, rounds {first['rounds']}".strip()
    shown = f": {_text(asked)}" if isinstance(asked, str) else ""
    gold = _text(first.get("answer", ""))
    rows = "".join(
        f"<tr><td>{_text(system_name(record))}</td><td>{_mark(record)}</td>"
        f"<td><pre>{_text(record['text'])}</pre></td></tr>"
        for record in records
    )
    return (
        f"<details><summary>{_text(title)}{shown} <b>{gold}</b></summary>"
        f"<table>{rows}</table></details>"
    )


def _mark(record: Record) -> str:
    if record["right"]:
        return "right"
    return "wrong" if record["readable"] else "unreadable"


def _text(value: Any) -> str:
    """Anything from a run's files, as text in a page, its end cut off where it is long."""
    text = str(value)
    return escape(clean(text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."))
