"""Keep what documents quote of a run with real models: one JSON out of its run folder.

    python scripts/real_results.py outputs/real/notes docs/results/real/notes_4.json [--note TEXT]
    python scripts/real_results.py outputs/real/asdiv_* docs/results/real/asdiv.json

Rows of results.json, the validations, seconds per step, versions and the config; docs/results.md.
Of several run folders (one task, several seeds) the questions are pooled, and each seed's accuracy
stands beside. ``comparisons``: the trained system against every other one, question by question.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rmas_train.evaluation.paired import compare, holm
from rmas_train.evaluation.statistics import wilson
from rmas_train.support.files import write_json

WHO = ("task", "system", "control", "rounds")
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


def pooled(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Several seeds in one: rows over all questions, with ``accuracy_by_seed``."""
    seeds = [one["config"]["seed"] for one in found]
    rows: list[dict[str, Any]] = []
    for row in found[0]["rows"]:
        same = [r for one in found for r in one["rows"] if all(r[k] == row[k] for k in WHO)]
        n, right = sum(r["n"] for r in same), sum(round(r["n"] * r["accuracy"]) for r in same)
        numbers = {"n": n, "accuracy": right / n, "ci95": wilson(right, n)}
        by_seed = {"accuracy_by_seed": [r["accuracy"] for r in same]}
        reach = {"accuracy_within_reach": None, "n_within_reach": 0}
        rows.append({k: row[k] for k in WHO} | numbers | by_seed | reach)
    each = ("command", "validation", "seconds_per_step")
    kept = {k: v for k, v in found[0].items() if k not in (*each, "rows")}
    return kept | {"seeds": seeds, "rows": rows} | {k: [one[k] for one in found] for k in each}


def paired(runs: list[Path]) -> list[dict[str, Any]]:
    """The trained system against every other one, on the same questions of all runs."""
    scores: dict[tuple[Any, ...], dict[tuple[int, int], float]] = {}
    for i, run in enumerate(runs):
        for record in read_lines(run / "eval" / "answers.jsonl"):
            who = tuple(record[key] for key in WHO)
            scores.setdefault(who, {})[i, record["line"]] = float(record["right"])
    found = []
    for (task, system, control, rounds), own in scores.items():
        trained = scores[task, "latent", None, rounds]
        if (system, control) != ("latent", None):
            result = compare([trained[key] for key in own], list(own.values()))
            about: dict[str, Any] = dict(zip(WHO, (task, system, control, rounds), strict=True))
            found.append(about | asdict(result))
    adjusted = holm([one["p"] for one in found])
    return [one | {"p_holm": p} for one, p in zip(found, adjusted, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folder; one for each seed")
    parser.add_argument("out", type=Path)
    parser.add_argument("--note", default="", help="what a reader has to know of the models")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = [collect(run, args.note) for run in args.runs]
    whole = found[0] if len(found) == 1 else pooled(found)
    write_json(args.out, whole | {"comparisons": paired(args.runs)})
    print(args.out)


if __name__ == "__main__":
    main()
