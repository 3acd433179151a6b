"""Run files below a folder, read into plain rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmas_train.errors import UserError

Row = dict[str, Any]


def result_files(folder: Path) -> list[Path]:
    """``eval/results.json`` of the run itself and of runs below it (sweeps, experiments)."""
    return sorted(folder.rglob("eval/results.json"))


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run stage=eval again.") from error
    if not isinstance(value, dict) or "rows" not in value:
        raise UserError(f"{path}: no rows in it; run stage=eval again.")
    return value


def collect(folder: Path) -> dict[str, Any]:
    """All results below ``folder`` in the form of docs/results.md.

    Raises:
        UserError: there are none.
    """
    files = result_files(folder)
    if not files:
        raise UserError(f"{folder}: no eval/results.json below it; run stage=eval first.")
    rows: list[Row] = []
    references: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    for path in files:
        found = read_json(path)
        name = str(path.parent.parent.relative_to(folder))
        extra = {"run": name, "trained_rounds": found["trained_rounds"]}
        rows += [row | extra for row in found["rows"]]
        references |= found["references"]
        runs[name] = {k: found[k] for k in ("environment", "config", "links")}
    return {"schema": 1, "rows": rows, "references": references, "runs": runs}


def read_metrics(folder: Path) -> dict[str, list[Row]]:
    """Stage -> lines of its ``metrics.jsonl``, for the run in ``folder``."""
    found = {}
    for stage in ("inner", "outer"):
        path = folder / stage / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found[stage] = [json.loads(line) for line in lines if line.strip()]
    return found
