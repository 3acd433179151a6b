"""The link report, for the terminal and for the page of an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rmas_train.errors import UserError
from rmas_train.support.output import clean
from rmas_train.support.reading import check_type, parse_json

LINK_REPORT = "links_report.json"  # in the run folder of an audit
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
    console.print(Text(untouched(report["links"])))


def untouched(links: Mapping[str, Any]) -> str:
    """How many links there are, and which look untouched, in one line."""
    named = [name for name, about in links.items() if about["looks_untouched"]]
    text = f"look untouched: {', '.join(named)}" if named else "no link looks untouched"
    return clean(f"{len(links)} links; {text}")


def finite(report: Any) -> Any:
    """The same as JSON can hold it: what is no finite number (a branch over a residual that is 0)
    is null."""
    if isinstance(report, Mapping):
        return {key: finite(value) for key, value in report.items()}
    if isinstance(report, list | tuple):
        return [finite(value) for value in report]
    return None if isinstance(report, float) and not math.isfinite(report) else report


class Facts(TypedDict):
    """Types of what is said of a link, as far as the page shows it."""

    widths: list[int]
    dtype: str
    statistics: dict[str, float | None]
    fresh: dict[str, list[float | None]]
    looks_untouched: bool
    why: str | None


def read_links(run: Path) -> dict[str, Any]:
    """Link -> facts, from the run folder of an audit; empty in other run folders.

    Raises:
        UserError: the file is damaged.
    """
    path = run / LINK_REPORT
    if not path.is_file():
        return {}
    try:
        links: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))["links"]
        check_type(links, dict[str, Facts], "links")
        if any(len(ends) != 2 for about in links.values() for ends in about["fresh"].values()):
            raise ValueError("key fresh: a range has two ends")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the audit again.") from error
    return links


def links_section(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A part of the page; nothing where there was no audit. ``reports``: run -> ``read_links``."""
    head = "".join(f"<th>{escape(label.strip())}</th>" for label, _ in (("link", ""), *ROWS))
    body = ""
    for found in reports.values():
        for name, about in found.items():
            cells = "".join(f"<td>{_cell(about, key)}</td>" for _, key in ROWS)
            why = f"<br><b>looks untouched: {_text(about['why'])}</b>"
            more = why if about["looks_untouched"] else ""
            body += f"<tr><td>{_text(name)}{more}</td>{cells}</tr>"
    lead = "<p>Below each value: its range over freshly drawn links of the same shape.</p>"
    made = f'<h2>Links</h2>{lead}<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
    return made if body else ""


def _cell(about: Mapping[str, Any], key: str) -> str:
    """A value, and below it that of fresh links."""
    value, (least, most) = about["statistics"].get(key), about["fresh"].get(key, (None, None))
    if value is None:
        return ""
    beside = (
        "" if least is None or most is None else f"<br><small>{least:.3g} to {most:.3g}</small>"
    )
    return f"{value:.4g}{beside}"


def _text(value: Any) -> str:
    return escape(clean(str(value)))
