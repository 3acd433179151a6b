"""Keep what documents quote of a run with real models: one JSON out of its run folder.

    python scripts/real_results.py outputs/real/notes docs/results/real/notes_4.json [--note TEXT]

Rows of results.json, the validations, seconds per step, versions and the config; docs/results.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from rmas_train.support.files import write_json

KEPT = ("schema", "rows", "systems", "references")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file; none where it is missing."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def seconds_per_step(folder: Path) -> dict[str, float]:
    """Stage -> median over the lines of its metrics, its first step left out."""
    found = {}
    for stage in ("inner", "outer"):
        seconds = [line["seconds"] for line in read_lines(folder / stage / "metrics.jsonl")[1:]]
        if seconds:
            found[stage] = median(seconds)
    return found


def collect(folder: Path, note: str) -> dict[str, Any]:
    """Everything that is kept."""
    results = json.loads((folder / "eval" / "results.json").read_text(encoding="utf-8"))
    return {
        "note": note,
        "command": results["environment"]["command"],
        **{key: results[key] for key in KEPT},
        "validation": read_lines(folder / "outer" / "validation.jsonl"),
        "seconds_per_step": seconds_per_step(folder),
        "environment": results["environment"],
        "config": results["config"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--note", default="", help="what a reader has to know of the models")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, collect(args.run, args.note))
    print(args.out)


if __name__ == "__main__":
    main()
