"""The same as Markdown, for a model card or a pull request: ``report/report.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmas_train.reporting.tables import HEADER, short_keys, swept_keys, table_rows
from rmas_train.support.output import clean

SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|$~^&])")


def report_markdown(
    results: Mapping[str, Any], pictures: Sequence[tuple[str, str]], said: Mapping[str, Any]
) -> str:
    """Verdicts, pictures, the table, and each run's command.

    Args:
        results: all that ``results.json`` holds.
        pictures: file name and caption of each PNG beside it.
        said: title -> lines.
    """
    parts = ["# Report"]
    for title, lines in said.items():
        if lines:
            parts += [f"## {title}", "\n".join(f"- {_text(line)}" for line in lines)]
    parts.append("## Results")
    parts += [f"![{_text(caption)}]({name})" for name, caption in pictures]
    head = (*short_keys(swept_keys(results["rows"])), *HEADER)
    rows = table_rows(results["rows"], results["systems"])
    lines = [" | ".join(map(_text, head)), " | ".join(["---"] * len(head))]
    lines += [" | ".join(map(_text, cells)) for cells in rows]
    parts += ["\n".join(f"| {one} |" for one in lines), "## Runs"]
    for name, run in results["runs"].items():
        found = run["environment"]
        facts = {"seed": run["config"]["seed"], "CPU threads": found["cpus"], "GPU": found["gpu"]}
        shown = ", ".join(
            f"{k} {v}" for k, v in (facts | found["versions"]).items() if v is not None
        )
        parts += [f"**{_text(name)}**: {_text(shown)}", _code(found["command"])]
    return "\n\n".join(parts) + "\n"


def _text(value: Any) -> str:
    """On one line, and nothing that Markdown or HTML would read as a mark."""
    return SPECIAL.sub(r"\\\1", " ".join(clean(str(value)).split()))


def _code(value: Any) -> str:
    return "\n".join(f"    {line}" for line in clean(str(value)).splitlines() or [""])
