"""Rows of a results file, from the records of single questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rmas_train.data.rows import is_within_reach
from rmas_train.evaluation.graders import Grader
from rmas_train.evaluation.records import Record
from rmas_train.evaluation.samples import by_question, majority, sampled, share_right
from rmas_train.evaluation.statistics import wilson

WHO = ("task", "system", "control", "rounds", "latent_length")


def by_system(records: Iterable[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Task, system, control, depth and latent length -> records, by row and sample."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record[key] for key in WHO), []).append(record)
    return {
        who: sorted(own, key=lambda r: (r["index"], r.get("sample", 0)))
        for who, own in found.items()
    }


def result_row(
    who: Sequence[Any],
    records: Sequence[Record],
    rows: Sequence[Mapping[str, Any]],
    lenient: Grader | None = None,
) -> dict[str, Any]:
    """One row of ``results.json``: accuracy with its interval, by reach where rows say so, costs.

    Args:
        who: values of ``WHO``.
        records: of this system; where a question has several, its share of right ones counts.
        rows: of the benchmark.
        lenient: counts the same texts once more, into ``accuracy_lenient``.
    """
    about = dict(zip(WHO, who, strict=True))
    questions = by_question(records)
    right = [share_right(own) for own in questions]
    within: list[float] = []
    beyond: list[float] = []
    for own, share in zip(questions, right, strict=True):
        row = rows[own[0]["index"]]
        if row.get("rounds_needed") is not None:
            (within if is_within_reach(row, about["rounds"]) else beyond).append(share)
    return {
        **about,
        "n": len(right),
        "unreadable": sum(not record["readable"] for record in records),
        "retried": sum(bool(record.get("retried")) for record in records),
        **_accuracy("", right),
        **_accuracy("_within_reach", within),
        **_accuracy("_beyond_reach", beyond),
        **_several(questions),
        **_lenient(questions, rows, lenient),
        **_score(records),
        "tokens": fmean(record["tokens"] for record in records),
        "prompt_tokens": fmean(record.get("prompt_tokens", 0) for record in records),
        "latent_steps": fmean(record["latent_steps"] for record in records),
        "tool_calls": fmean(_calls(record) for record in records),
        "seconds": fmean(record["seconds"] for record in records),
        **_peak(records),
    }


def _several(questions: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """What several texts for each question say, where there are several."""
    found = sampled(questions)
    if not found:
        return {}
    return found | _accuracy("_majority", [float(majority(own)["right"]) for own in questions])


def _lenient(
    questions: Sequence[Sequence[Record]],
    rows: Sequence[Mapping[str, Any]],
    grader: Grader | None,
) -> dict[str, Any]:
    """The same texts as the release counts them."""
    if grader is None:
        return {}

    def share(own: Sequence[Record]) -> float:
        return fmean(grader.grade(rows[r["index"]], r["text"]).right for r in own)

    return _accuracy("_lenient", [share(own) for own in questions])


def _peak(records: Sequence[Record]) -> dict[str, float]:
    """Memory of the device at most; a processor's own memory says nothing of one system."""
    peaks = [record["peak_gib"] for record in records if "peak_gib" in record]
    return {"peak_gib": max(peaks)} if peaks else {}


def _score(records: Sequence[Record]) -> dict[str, float]:
    """Mean score, where the grader gives more than right and wrong."""
    if not all("score" in record for record in records):
        return {}
    return {"score": fmean(record["score"] for record in records)}


def _calls(record: Record) -> int:
    return sum(not call["refused"] for call in record.get("calls", ()))


def _accuracy(suffix: str, right: list[float]) -> dict[str, Any]:
    """Mean and Wilson's interval; with several texts for each question it is a little too wide."""
    if not right:
        return {f"accuracy{suffix}": None, f"ci95{suffix}": None, f"n{suffix}": 0}
    low, high = wilson(sum(right), len(right))
    return {
        f"accuracy{suffix}": sum(right) / len(right),
        f"ci95{suffix}": [low, high],
        f"n{suffix}": len(right),
    }
