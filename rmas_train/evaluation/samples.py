"""Several texts for each question: share of right ones, pass@k, the majority's answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb
from statistics import fmean
from typing import Any

from rmas_train.evaluation.records import Record
from rmas_train.systems.budget import most_voted


def by_question(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each question, in the order of questions and samples."""
    found: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["index"], r.get("sample", 0))):
        found.setdefault(record["index"], []).append(record)
    return list(found.values())


def share_right(records: Sequence[Record]) -> float:
    """Of the texts of one question; the mean over questions is pass@1."""
    return fmean(bool(record["right"]) for record in records)


def pass_at(right: int, texts: int, k: int) -> float:
    """Probability that one of k texts is right, k drawn from these texts without replacement.

    Unbiased over samples (Chen and others 2021, arXiv 2107.03374, equation 1).

    Args:
        right: of the texts.
        texts: of one question, k or more.
        k: 1 or more.
    """
    return 1 - comb(texts - right, k) / comb(texts, k)


def majority(records: Sequence[Record]) -> Record:
    """The first record whose answer most texts of the question have; see ``most_voted``."""
    return records[most_voted([r["read"] if r["readable"] else None for r in records])]


def sampled(questions: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """``samples`` and ``pass_at`` of a results row; nothing where there is one text each.

    Returns:
        ``pass_at``: k -> mean over questions, for powers of two and the number of samples.
    """
    count = min(map(len, questions))
    if count < 2:
        return {}
    right = [sum(bool(record["right"]) for record in own) for own in questions]
    powers = (2**i for i in range(count.bit_length()))
    found = {
        str(k): fmean(pass_at(r, len(own), k) for r, own in zip(right, questions, strict=True))
        for k in sorted({*powers, count})
        if k <= count
    }
    return {"samples": count, "pass_at": found}
