"""Rows of a results file, from the records of single questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rmas_train.data.rows import is_within_reach
from rmas_train.evaluation.records import Record
from rmas_train.evaluation.statistics import wilson

WHO = ("task", "system", "control", "rounds", "latent_length")


def by_system(records: Iterable[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Task, system, control, depth and latent length -> records in the order of the rows."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record[key] for key in WHO), []).append(record)
    return {who: sorted(own, key=lambda r: r["index"]) for who, own in found.items()}


def result_row(
    who: Sequence[Any], records: Sequence[Record], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One row of ``results.json``: accuracy with its interval, by reach where rows say so, costs.

    Args:
        who: values of ``WHO``.
        records: of this system, in the order of the rows.
        rows: of the benchmark.
    """
    about = dict(zip(WHO, who, strict=True))
    right = [bool(record["right"]) for record in records]
    within: list[bool] = []
    beyond: list[bool] = []
    for record, is_right in zip(records, right, strict=True):
        row = rows[record["index"]]
        if row.get("rounds_needed") is not None:
            (within if is_within_reach(row, about["rounds"]) else beyond).append(is_right)
    return {
        **about,
        "n": len(right),
        "unreadable": sum(not record["readable"] for record in records),
        **_accuracy("", right),
        **_accuracy("_within_reach", within),
        **_accuracy("_beyond_reach", beyond),
        **_score(records),
        "tokens": fmean(record["tokens"] for record in records),
        "latent_steps": fmean(record["latent_steps"] for record in records),
        "tool_calls": fmean(_calls(record) for record in records),
        "seconds": fmean(record["seconds"] for record in records),
    }


def _score(records: Sequence[Record]) -> dict[str, float]:
    """Mean score, where the grader gives more than right and wrong."""
    if not all("score" in record for record in records):
        return {}
    return {"score": fmean(record["score"] for record in records)}


def _calls(record: Record) -> int:
    return sum(not call["refused"] for call in record.get("calls", ()))


def _accuracy(suffix: str, right: list[bool]) -> dict[str, Any]:
    if not right:
        return {f"accuracy{suffix}": None, f"ci95{suffix}": None, f"n{suffix}": 0}
    low, high = wilson(sum(right), len(right))
    return {
        f"accuracy{suffix}": sum(right) / len(right),
        f"ci95{suffix}": [low, high],
        f"n{suffix}": len(right),
    }
