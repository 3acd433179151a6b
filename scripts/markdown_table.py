"""Print a results.json as the Markdown table that README.md shows.

python scripts/markdown_table.py outputs/demo/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NAMES = {
    ("latent", None): "latent, trained",
    ("text", None): "text recursion",
    ("latent", "start"): "latent, start (before outer training)",
    ("latent", "untrained"): "latent, untrained links",
    ("latent", "null"): "latent, null (empty slots)",
    ("latent", "shuffled"): "latent, shuffled slots",
    ("decoder_alone", None): "decoder alone",
}


def cell(row: dict) -> str:
    within, beyond = row["accuracy_within_reach"], row["accuracy_beyond_reach"]
    return f"{100 * within:.1f}" + (f" / {100 * beyond:.1f}" if beyond is not None else "")


def main(path: str) -> None:
    rows = json.loads(Path(path).read_text())["rows"]
    for task in sorted({r["task"] for r in rows}):
        depths = sorted({r["rounds"] for r in rows if r["task"] == task})
        print(f"\n| {task} | " + " | ".join(f"R = {d}" for d in depths) + " |")
        print("|---|" + "---|" * len(depths))
        for (system, control), name in NAMES.items():
            found = {
                r["rounds"]: r
                for r in rows
                if (r["task"], r["system"], r["control"]) == (task, system, control)
            }
            if found:
                print(f"| {name} | " + " | ".join(cell(found[d]) for d in depths) + " |")


if __name__ == "__main__":
    main(sys.argv[1])
