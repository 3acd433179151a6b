"""The result table, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from rmas_train.support.output import clean
from rmas_train.systems.looks import looks_of, system_name

Row = dict[str, Any]
HEADER = (
    "task",
    "system",
    "trained at",
    "rounds",
    "latent",
    "accuracy (95% interval)",
    "within reach",
    "beyond",
    "tokens",
    "latent steps",
    "ms each",
)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:z.1f}"  # z: no "-0.0" from rounding


def table_rows(rows: list[Row], systems: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells in the order of ``HEADER``, by task, run, depth and system.

    Args:
        rows, systems: of a results file.
    """
    places = list(looks_of(rows, systems))
    ordered = sorted(
        rows,
        key=lambda r: (
            r["task"],
            r["run"],
            r["rounds"],
            places.index(system_name(r)),
            r["latent_length"],
        ),
    )
    cells: list[tuple[str, ...]] = []
    for row in ordered:
        low, high = row["ci95"]
        cells.append(
            (
                row["task"],
                system_name(row),
                str(row["trained_rounds"] or ""),
                str(row["rounds"]),
                str(row["latent_length"]),
                f"{percent(row['accuracy'])} ({percent(low)} to {percent(high)})",
                percent(row["accuracy_within_reach"]),
                percent(row["accuracy_beyond_reach"]),
                f"{row['tokens']:.1f}",
                f"{row['latent_steps']:.0f}",
                f"{1000 * row['seconds']:.1f}",
            )
        )
    return cells


def terminal_table(rows: list[Row], systems: Mapping[str, Any]) -> Table:
    table = Table(title="Results (accuracies in percent)", title_justify="left")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="left" if i < 2 else "right")
    task = ""
    for cells in table_rows(rows, systems):
        if task and cells[0] != task:
            table.add_section()
        task = cells[0]
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table
