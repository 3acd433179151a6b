"""Figures of a sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rmas_train.reporting.embedding import Picture
from rmas_train.reporting.plots import COLOURS, heat_map, legend, line, plot, text

Row = dict[str, Any]


def pictures(summary: Mapping[str, Any]) -> list[Picture]:
    """Training depth against inference depth, and accuracy against each swept number."""
    found = []
    for i, task in enumerate(sorted({row["task"] for row in summary["rows"]})):
        rows = [row for row in summary["rows"] if row["task"] == task]
        if "rounds" in summary["keys"]:
            caption = f"{text(task)}: accuracy, training depth against inference depth."
            found.append(Picture(f"depths-{i}", caption, _depths(rows)))
        for key in summary["keys"]:
            if key != "rounds" and _are_numbers(row["values"][key] for row in rows):
                caption = f"{text(task)}: accuracy against {text(key)}, by depth."
                found.append(Picture(f"sweep-{i}-{len(found)}", caption, _against(rows, key)))
    return found


def _depths(rows: Sequence[Row]) -> Any:
    shown = [
        {
            "x": str(row["rounds"]),
            "y": str(row["trained_rounds"]),
            "value": 100 * row["accuracy"],
            "text": f"{100 * row['accuracy']:.1f}",
            "interval": f"{100 * row['ci95'][0]:.1f} to {100 * row['ci95'][1]:.1f}",
        }
        for row in sorted(rows, key=lambda r: (r["rounds"], r["trained_rounds"] or 0))
    ]
    return heat_map(shown, "rounds in evaluation", "rounds in training", 0, 100)


def _are_numbers(values: Any) -> bool:
    try:
        return len({float(value) for value in values}) > 1
    except ValueError:
        return False


def _against(rows: Sequence[Row], key: str) -> Any:
    others = [k for k in rows[0]["values"] if k != key]
    curves: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rest = ", ".join(f"{k}={row['values'][k]}" for k in others)
        curves[f"{row['rounds']} rounds {rest}".strip()].append(row)
    drawn = plot(text(key), "accuracy, %", y_range=(0, 103))
    entries = {}
    for i, (name, own) in enumerate(curves.items()):
        ordered = sorted(own, key=lambda row: float(row["values"][key]))
        columns = {
            "x": [float(row["values"][key]) for row in ordered],
            "y": [100 * row["accuracy"] for row in ordered],
            "low": [100 * row["ci95"][0] for row in ordered],
            "high": [100 * row["ci95"][1] for row in ordered],
            "curve": [text(name)] * len(ordered),
        }
        entries[name] = line(drawn, columns, COLOURS[i % len(COLOURS)])
    legend(drawn, entries)
    return drawn
