"""The plan of an outer step as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

GIB = 2**30
MEMORY = ("agents", "links", "gradients", "optimizer", "activations", "kept", "total")
MOVED = (
    ("gradients sent, MiB", "gradients_sent", 2**20),
    ("agents if sharded, GiB", "sharded_weights", GIB),
    ("layers received if sharded, GiB", "sharded_received", GIB),
)
FLOPS = ("frozen_forward", "graph_forward", "backward")


def print_plan(lines: Sequence[dict[str, Any]], device_gib: float) -> None:
    """One column for each number of devices; every figure is that of one device."""
    table = Table(
        title=f"Outer step, one of n devices with {device_gib:g} GiB", title_justify="left"
    )
    table.add_column("")
    for line in lines:
        table.add_column(f"n = {line['devices']}", justify="right")
    table.add_row("rows x micro-batches", *(f"{p['rows']} x {p['micro_batches']}" for p in lines))
    for key in MEMORY:
        table.add_row(f"{key}, GiB", *(f"{p[key] / GIB:.3g}" for p in lines))
    table.add_row("fits", *("yes" if p["fits"] else "NO" for p in lines))
    for key in FLOPS:
        cells = (f"{p['flops'][key] * p['micro_batches'] / 1e12:.3g}" for p in lines)
        table.add_row(f"{key.replace('_', ' ')}, 10^12 operations", *cells)
    table.add_row(
        "step at least, s, at the measured rates", *(f"{p['seconds']:.3g}" for p in lines)
    )
    table.add_row(
        "gradients to reduce, MiB", *(f"{p['bytes_to_reduce'] / 2**20:.0f}" for p in lines)
    )
    for label, key, unit in MOVED:
        table.add_row(label, *(f"{p['communication'][key] / unit:.3g}" for p in lines))
    console = Console()
    console.print(table)
    for line in lines:
        for knob in line["advice"]:
            console.print(f"n = {line['devices']}: {knob}", markup=False, highlight=False)
