"""The link report for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rmas_train.support.output import clean

ROWS = (
    ("W singular values: largest", "largest"),
    ("  median", "median"),
    ("  least", "least"),
    ("branch / residual", "branch_over_residual"),
    ("output norm, 5%", "output_norm_p5"),
    ("output norm, median", "output_norm_p50"),
    ("output norm, 95%", "output_norm_p95"),
    ("pairwise cosine, in", "cosine_in"),
    ("pairwise cosine, out", "cosine_out"),
    ("nearest neighbours kept", "neighbours_kept"),
)


def print_links(report: dict[str, Any]) -> None:
    """Per link: what was found, the range of fresh links, movement, and the verdict."""
    console = Console()
    for name, about in report["links"].items():
        widths = " to ".join(map(str, about["widths"]))
        table = Table(
            title=Text(clean(f"{name}  {widths}  {about['dtype']}")), title_justify="left"
        )
        table.add_column("")
        table.add_column("found", justify="right")
        table.add_column(f"{report['draws']} fresh draws", justify="right")
        for label, key in ROWS:
            least, most = about["fresh"][key]
            cells = (f"{about['statistics'][key]:.4g}", f"{least:.4g} to {most:.4g}")
            table.add_row(label, *map(Text, cells))
        for parameter, norm in about["norms"].items():
            moved = "" if about["moved"] is None else f"moved {about['moved'][parameter]:.2g}"
            table.add_row(Text(f"norm of {parameter}"), Text(f"{norm:.4g}"), Text(moved))
        console.print(table)
        console.print(Text(clean(f"inputs: {about['inputs']}")))
        if about["moved"] is None:
            console.print(Text("movement: unknown, because the start was not kept"))
        if about["looks_untouched"]:
            console.print(Text(f"LOOKS UNTOUCHED: {about['why']}", style="bold"))
        console.print()
    named = [name for name, about in report["links"].items() if about["looks_untouched"]]
    text = f"look untouched: {', '.join(named)}" if named else "no link looks untouched"
    console.print(Text(clean(f"{len(report['links'])} links; {text}")))
