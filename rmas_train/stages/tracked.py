"""The results and the report of a run or a sweep, in the trackers of its training."""

from __future__ import annotations

import secrets
from pathlib import Path

from rmas_train.config import Config
from rmas_train.reporting.tables import HEADER, swept_keys, table_rows
from rmas_train.support.reading import parse_json
from rmas_train.systems.looks import system_name
from rmas_train.training.tracking import Place, Trackers


def track_report(config: Config) -> None:
    """After ``write_report``: accuracies by depth, the table and the page."""
    folder = Path(config.run_dir)
    results = parse_json((folder / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    trackers = Trackers(config.tracking, Place.of(config, "eval"), secrets.token_hex(4))
    for rounds in sorted({row["rounds"] for row in rows}):
        values = {
            f"accuracy/{row['task']}/{system_name(row)}{_run(row)}": row["accuracy"]
            for row in rows
            if row["rounds"] == rounds
        }
        trackers.log(values, step=rounds)
    head = [*swept_keys(rows), *HEADER]
    trackers.table("results", head, [list(r) for r in table_rows(rows, results["systems"])])
    trackers.page("report", folder / "report" / "index.html", folder / "report" / "report.md")
    trackers.close()


def _run(row: dict[str, str]) -> str:
    """Which job of a sweep a row is of."""
    return "" if row["run"] == "." else f"/{row['run']}"
