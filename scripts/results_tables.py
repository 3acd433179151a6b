"""What `make results` found, for the documents: one trimmed file, and its tables.

    python scripts/results_tables.py outputs/results/results.json --keep FILE
    python scripts/results_tables.py docs/results/all_systems.json

The second prints the tables of docs/comparison.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rmas_train.support.files import write_json
from rmas_train.systems.looks import looks_of, system_name

KEPT = (
    *("task", "system", "control", "rounds", "latent_length"),
    *("n", "unreadable", "accuracy", "ci95"),
    *("tokens", "prompt_tokens", "latent_steps", "seconds"),
)
# Of the paper (arXiv 2604.25917), at 1, 2 and 3 rounds: tokens saved against text, and speed-up.
PAPER = {1: (34.6, 1.2), 2: (65.5, 1.9), 3: (75.6, 2.4)}
Row = dict[str, Any]


def trimmed(found: Mapping[str, Any]) -> dict[str, Any]:
    """What documents quote."""
    runs = {
        name: {"environment": run["environment"], "seed": run["config"]["seed"]}
        for name, run in found["runs"].items()
    }
    rows = [{key: row[key] for key in KEPT} for row in found["rows"]]
    kept = {key: found[key] for key in ("systems", "not_applicable", "comparisons", "verdicts")}
    return {"schema": 1, "rows": rows, **kept, "runs": runs}


def accuracy_table(rows: list[Row], found: Mapping[str, Any]) -> Iterator[str]:
    """Systems down, depths across, and pairs where there is one depth; then what cannot apply, and
    the verdicts."""
    task, depths = rows[0]["task"], sorted({row["rounds"] for row in rows})
    looks = looks_of(rows, found["systems"])
    heads = [f"{task} (n = {rows[0]['n']})", *(f"R = {d}" for d in depths)]
    pairs = {one["b"]: one for one in found["comparisons"] if one["task"] == task}
    if len(depths) == 1:
        heads += ["trained minus it, points", "p (Holm)"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for name, look in looks.items():
        own = {row["rounds"]: _percent(row) for row in rows if system_name(row) == name}
        cells = [look.label, *(own.get(d, "") for d in depths)]
        if len(depths) == 1:
            cells += _pair(pairs.get(name))
        yield "| " + " | ".join(cells) + " |"
    for one in found["not_applicable"]:
        if one["task"] == task:
            why = f"not applicable: {one['why']}"
            yield f"| {system_name(one)} | {why} |" + " |" * (len(heads) - 2)
    for one in found["verdicts"]:
        if one["task"] == task:
            yield f"\nR = {one['rounds']}: {one['line']}"


def cost_table(rows: list[Row]) -> Iterator[str]:
    """Latent against text at equal rounds, with the paper's numbers beside."""
    named = {(system_name(row), row["rounds"]): row for row in rows}
    depths = sorted({row["rounds"] for row in rows if ("text", row["rounds"]) in named})
    if not depths:
        return
    yield (
        "| rounds | latent: text tokens, latent steps | text: tokens | tokens saved (paper) | "
        "latent steps counted as tokens | times faster (paper) |"
    )
    yield "|---" * 6 + "|"
    for depth in depths:
        latent, text = named["latent", depth], named["text", depth]
        whole = latent["tokens"] + latent["latent_steps"]
        saved = 100 * (1 - latent["tokens"] / text["tokens"])
        also = 100 * (1 - whole / text["tokens"])
        paper = PAPER.get(depth, ("", ""))
        yield (
            f"| {depth} | {latent['tokens']:.1f}, {latent['latent_steps']:.0f} | "
            f"{text['tokens']:.1f} | {saved:.1f}% ({paper[0]}%) | {also:.1f}% | "
            f"{text['seconds'] / latent['seconds']:.2f} ({paper[1]}) |"
        )


def _pair(pair: Mapping[str, Any] | None) -> tuple[str, str]:
    if pair is None:
        return "", ""
    low, high = (100 * end for end in pair["ci95"])
    p = "< 0.001" if pair["p_holm"] < 0.001 else f"{pair['p_holm']:.3f}"
    return f"{100 * pair['difference']:+.1f} ({low:.1f} to {high:.1f})", p


def _percent(row: Row) -> str:
    low, high = (100 * end for end in row["ci95"])
    return f"{100 * row['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--keep", type=Path, help="write the trimmed file there, print nothing")
    args = parser.parse_args()
    found = json.loads(args.file.read_text(encoding="utf-8"))
    if args.keep:
        write_json(args.keep, trimmed(found))
        return
    for task in dict.fromkeys(row["task"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["task"] == task]
        print(*accuracy_table(rows, found), "", *cost_table(rows), "", sep="\n")


if __name__ == "__main__":
    main()
