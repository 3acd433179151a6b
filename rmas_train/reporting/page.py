"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rmas_train.reporting.embedding import Picture, pictures_html, policy, scripts
from rmas_train.reporting.insight import table
from rmas_train.reporting.tables import HEADER, short_keys, swept_keys, table_rows
from rmas_train.support.output import clean

STYLE = """
:root{color-scheme:light dark;--back:#fff;--fore:#1b1f24;--line:#d6dae0;--soft:#f3f5f7}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--fore:#e4e7eb;--line:#3a4048;--soft:#1d2126}}
body{font-family:system-ui,sans-serif;line-height:1.45;max-width:1100px;margin:0 auto;
padding:1rem;background:var(--back);color:var(--fore)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;margin:.5rem 0}
td,th{padding:2px 9px;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child,td:nth-child(2),th:first-child,th:nth-child(2){text-align:left}
tr:nth-child(even){background:var(--soft)}
figure{margin:1rem 0}figcaption{font-size:14px}
td pre{margin:0;text-align:left;white-space:pre-wrap;overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,monospace}pre.command,pre.config{white-space:pre-wrap;
overflow-wrap:anywhere;background:var(--soft);padding:.6rem;border-radius:4px}
summary{margin:.4em 0;cursor:pointer;overflow-wrap:anywhere}li{overflow-wrap:anywhere}
""".replace("\n", "")
LEAD = (
    "Accuracies in percent. <i>Within reach</i>: problems that this depth can solve at best, where "
    "the data say so. Controls: <i>start</i> = links as the outer stage began, <i>untrained</i> = "
    "freshly drawn links, <i>null</i> = empty slots, <i>shuffled</i> = another problem's messages."
)


def page(
    title: str,
    results: Mapping[str, Any],
    pictures: Sequence[Picture],
    said: Mapping[str, Sequence[str]],
    sections: Sequence[str],
) -> str:
    """Every text from a run file is escaped.

    Args:
        title: of the page.
        results: all that ``results.json`` holds.
        pictures: of results, costs and training.
        said: title -> lines, such as verdicts.
        sections: further parts, as HTML.
    """
    head = (*short_keys(swept_keys(results["rows"])), *HEADER)
    rows = [list(cells) for cells in table_rows(results["rows"], results["systems"])]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy()}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{_text(title)}</h1>{lists(said)}<h2>Results</h2>{pictures_html(pictures)}<p>{LEAD}</p>"
        f"{table(head, rows)}{''.join(sections)}<h2>Runs</h2>{_runs(results['runs'])}"
        f"{scripts()}</body></html>\n"
    )


def _runs(runs: Mapping[str, Any]) -> str:
    """Command, config, versions and hardware of each run; the command can be pasted."""
    parts = []
    for name, run in runs.items():
        found = run["environment"]
        facts = {
            "seed": run["config"]["seed"],
            "commit": found.get("commit"),
            "CPU threads": found["cpus"],
            "GPU": found["gpu"],
        }
        shown = ", ".join(
            f"{k} {v}" for k, v in (facts | found["versions"]).items() if v is not None
        )
        config = "\n".join(f"{key}={value}" for key, value in flat(run["config"]))
        parts.append(
            f"<details><summary><b>{_text(name)}</b>: {_text(shown)}</summary>"
            f'<pre class="command">{_text(found["command"])}</pre>'
            f'<pre class="config">{_text(config)}</pre></details>'
        )
    return "".join(parts)


def flat(values: Any, key: str = "") -> list[tuple[str, Any]]:
    """Nested options as full keys and values."""
    if isinstance(values, Mapping) and values:
        return [pair for k, v in values.items() for pair in flat(v, f"{key}.{k}".lstrip("."))]
    return [(key, values)]


def lists(said: Mapping[str, Sequence[str]]) -> str:
    """Lines under their titles; nothing for a title without lines."""
    found = ""
    for title, lines in said.items():
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        found += f"<h2>{escape(title)}</h2><ul>{items}</ul>" if lines else ""
    return found


def _text(value: Any) -> str:
    return escape(clean(str(value)))
