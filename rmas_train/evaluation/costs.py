"""What an answer costs beside its tokens: the time of a single question, a price."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from rmas_train.evaluation.evaluate import Judge, Trial
from rmas_train.evaluation.parts import Part


def with_costs(
    rows: list[dict[str, Any]], judge: Judge, parts: Sequence[Part]
) -> list[dict[str, Any]]:
    """Rows with ``seconds_single`` and ``price_per_1000``, where the options ask for them."""
    options = judge.config.evaluation
    if options.price_per_hour is not None:
        for row in rows:
            row["price_per_1000"] = 1000 * row["seconds"] / 3600 * options.price_per_hour
    if not options.single_rows:
        return rows
    first = {
        (part.benchmark.name, depth): part for part in reversed(parts) for depth in part.depths
    }
    single = {
        (name, trial.entry.system, trial.entry.control, depth): trial
        for (name, _), part in first.items()
        for trial in judge.trials(part)
        for depth in trial.depths
    }
    for row in rows:
        trial = single[row["task"], row["system"], row["control"], row["rounds"]]
        row["seconds_single"] = seconds_single(trial, options.single_rows)
    return rows


def seconds_single(trial: Trial, count: int) -> float | None:
    """Median seconds of the first questions of a part, each asked by itself.

    None where answers depend on other rows.
    """
    if trial.mixes_rows:
        return None
    found = []
    for row in trial.part.rows[:count]:
        began = time.perf_counter()
        trial.system.answer([row], trial.depths[0])
        found.append(time.perf_counter() - began)
    return median(found)
