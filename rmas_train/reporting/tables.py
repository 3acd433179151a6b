"""The result table, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "unreadable",
    "tokens",
    "latent steps",
    "ms each",
)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:z.1f}"  # z: no "-0.0" from rounding


def swept_keys(rows: Sequence[Row]) -> list[str]:
    """Options that the rows' runs differ in, where they are of a sweep."""
    return list(dict.fromkeys(key for row in rows for key in row.get("swept", {})))


def short_keys(keys: Sequence[str]) -> list[str]:
    """Options by their last part, where that names one of them alone."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [s if last.count(s) == 1 else key for s, key in zip(last, keys, strict=True)]


def table_rows(rows: list[Row], systems: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells in the order of ``swept_keys`` and ``HEADER``, by task, run, depth and system.

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
    keys = swept_keys(rows)
    for row in ordered:
        low, high = row["ci95"]
        cells.append(
            (
                *(row.get("swept", {}).get(key, "") for key in keys),
                row["task"],
                system_name(row),
                str(row["trained_rounds"] or ""),
                str(row["rounds"]),
                str(row["latent_length"]),
                f"{percent(row['accuracy'])} ({percent(low)} to {percent(high)}){_lenient(row)}",
                percent(row["accuracy_within_reach"]),
                percent(row["accuracy_beyond_reach"]),
                _unreadable(row),
                f"{row['tokens']:.1f}",
                f"{row['latent_steps']:.0f}",
                f"{1000 * row['seconds']:.1f}",
            )
        )
    return cells


def _lenient(row: Row) -> str:
    """The same texts as the release counts them, where that was asked for."""
    value = row.get("accuracy_lenient")
    return "" if value is None else f"; lenient {percent(value)}"


def _unreadable(row: Row) -> str:
    """Texts in which the grader found no answer; behind it, those that went on after their end."""
    count, again = row.get("unreadable", ""), row.get("retried")
    return f"{count} ({again} went on)" if again else f"{count}"


def terminal_table(rows: list[Row], systems: Mapping[str, Any]) -> Table:
    keys = swept_keys(rows)
    title = "Results (accuracies in percent)"
    at = len(keys)
    return plain_table(title, (*short_keys(keys), *HEADER), table_rows(rows, systems), at, at + 2)


def plain_table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    section: int | None = None,
    left: int = 2,
) -> Table:
    """A table of texts.

    Args:
        title, head, rows: what it says.
        section: column whose changes begin a new part.
        left: so many columns stand at the left.
    """
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(Text(clean(name)), justify="left" if i < left else "right")
    before = None
    for cells in rows:
        now = None if section is None else cells[section]
        if before is not None and now != before:
            table.add_section()
        before = now
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table
