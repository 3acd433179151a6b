"""A sweep's own table: a column for whatever was swept, means over seeds, and missing jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypedDict

from rmas_train.errors import UserError
from rmas_train.reporting.tables import percent, short_keys
from rmas_train.support.reading import check_type, parse_json

Row = dict[str, Any]
SEED = "seed"


class SweepFile(TypedDict):
    """Types of ``sweep.json``."""

    keys: list[str]
    jobs: dict[str, dict[str, str]]


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """``sweep.json`` of a sweep's folder; None elsewhere.

    Raises:
        UserError: it is damaged.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        check_type(found, SweepFile, "")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the sweep again.") from error
    return {"keys": found["keys"], "jobs": found["jobs"]}


def summarise(sweep: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """What the sweep comes to.

    Returns:
        ``keys``: swept options, but the seed; ``rows``: per combination, task and depth of the
        trained system, ``values``, ``accuracy`` (mean over seeds), ``deviation`` between seeds
        (None for one), ``seeds``, ``ci95`` of the rows of all seeds together; ``missing``: jobs
        without results.
    """
    keys = [key for key in sweep["keys"] if key != SEED]
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    there = {row["run"] for row in rows}
    for row in rows:
        values = sweep["jobs"].get(row["run"])
        if values is not None and row["system"] == "latent" and row["control"] is None:
            own = tuple(values.get(key, "") for key in keys)
            groups[own, row["task"], row["rounds"]].append(row)
    return {
        "keys": keys,
        "rows": [
            {"values": dict(zip(keys, own, strict=True)), "task": task, "rounds": rounds}
            | _over_seeds(found)
            for (own, task, rounds), found in groups.items()
        ],
        "missing": [name for name in sweep["jobs"] if name not in there],
    }


def _over_seeds(rows: Sequence[Row]) -> dict[str, Any]:
    accuracies = [row["accuracy"] for row in rows]
    within = [r["accuracy_within_reach"] for r in rows if r["accuracy_within_reach"] is not None]
    return {
        "trained_rounds": rows[0]["trained_rounds"],
        "latent_length": rows[0]["latent_length"],
        "accuracy": mean(accuracies),
        "deviation": stdev(accuracies) if len(rows) > 1 else None,
        "within_reach": mean(within) if within else None,
        "seeds": len(rows),
        "ci95": [mean(row["ci95"][end] for row in rows) for end in (0, 1)],
    }


def header(summary: Mapping[str, Any]) -> tuple[str, ...]:
    more = ("task", "rounds", "accuracy", "over seeds", "seeds", "within reach")
    return (*short_keys(summary["keys"]), *more)


def cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows in the order of ``header``."""
    return [
        (
            *(row["values"][key] for key in summary["keys"]),
            row["task"],
            str(row["rounds"]),
            f"{percent(row['accuracy'])} ({percent(row['ci95'][0])} to {percent(row['ci95'][1])})",
            "" if row["deviation"] is None else f"\N{PLUS-MINUS SIGN} {percent(row['deviation'])}",
            str(row["seeds"]),
            percent(row["within_reach"]),
        )
        for row in summary["rows"]
    ]
