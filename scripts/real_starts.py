"""How each start of the links learns the notes: loss and accuracy on validation rows, by steps.

    python scripts/real_starts.py --small FOLDER [--work outputs/real/starts] [--only NAME ...]
        [--out docs/results/real/starts.json]

One run per start, all of the same pair, rows and schedule, and no other difference than the named
options; then an evaluation on words that no training row has. What is finished is not made again,
and what an earlier call wrote of other starts is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rmas_train.support.files import write_json

STARTS = {
    "hidden_seen": ["links=default", "links.start_pairs=seen"],
    "hidden_all": ["links=default"],
    "hidden_none": ["links=default", "links.norm=none"],
    "hidden_default": ["links=default", "links.init=default"],
    "expected": ["links=default", "links.readout=expected_embedding"],
    "vocabulary": ["links=vocabulary"],
    "vocabulary_match": ["links=vocabulary", "links.norm=match_embedding"],
}
INNER = 40  # steps, where a thought is sent; a vocabulary read-out sends hidden states
OUTER, OUTER_VOCABULARY = 120, 40
COMMON = [
    *("training.outer.validate_every=20", "training.outer.validate_rows=60"),
    *("training.outer.log_every=5", "training.outer.select=last", "runtime.threads=1"),
]
GOAL = 0.9
NEW_WORDS = 200  # test rows
MACHINE = ("python", "machine", "cpus", "threads", "gpu", "versions")


def run(name: str, small: str, folder: Path) -> None:
    """Both stages of one start, unless its links are there."""
    if (folder / "outer" / "links" / "links.json").is_file():
        return
    speaks = name.startswith("vocabulary")
    steps = [
        f"training.inner.steps={1 if speaks else INNER}",
        f"training.outer.steps={OUTER_VOCABULARY if speaks else OUTER}",
    ]
    typed = ["experiment=notes", f"small={small}", f"run_dir={folder}", *COMMON, *STARTS[name]]
    for stage in ("inner", "outer"):
        command = [sys.executable, "-m", "rmas_train", *typed, *steps, f"stage={stage}"]
        subprocess.run(command, check=True)


def ask_new_words(folder: Path) -> None:
    """Evaluate on words that the links never carried, unless that is done."""
    if results_of(folder).is_file():
        return
    asked = [f"run={folder}", f"run_dir={folder / 'new_words'}", "data.test=test_words.jsonl"]
    how = [f"evaluation.max_rows={NEW_WORDS}", "evaluation.systems=[shuffled]", "runtime.threads=1"]
    command = [sys.executable, "-m", "rmas_train", "stage=eval", *asked, *how]
    subprocess.run(command, check=True)


def results_of(folder: Path) -> Path:
    return folder / "new_words" / "eval" / "results.json"


def new_words(folder: Path) -> dict[str, dict[str, Any]]:
    """System -> accuracy, interval and number of rows; nothing if it was not asked."""
    if not results_of(folder).is_file():
        return {}
    rows = json.loads(results_of(folder).read_text(encoding="utf-8"))["rows"]
    keys = ("accuracy", "ci95", "n")
    return {row["control"] or "trained": {key: row[key] for key in keys} for row in rows}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def describe(folder: Path) -> dict[str, Any]:
    """Curve, steps to the goal, and what the links card says of the start."""
    curve = [
        {"steps": line["steps"]} | line["by_depth"]["1"]
        for line in lines_of(folder / "outer" / "validation.jsonl")
    ]
    reached = [point["steps"] for point in curve if point["accuracy"] >= GOAL]
    card = json.loads((folder / "outer" / "links" / "links.json").read_text(encoding="utf-8"))
    about = json.loads((folder / "outer" / "environment.json").read_text(encoding="utf-8"))
    seconds = sorted(line["seconds"] for line in lines_of(folder / "outer" / "metrics.jsonl")[1:])
    return {
        "options": STARTS[folder.name],
        "steps_to_90": reached[0] if reached else None,
        "curve": curve,
        "new_words": new_words(folder),
        "alignment": card["alignment"],
        "seconds_per_step": seconds[len(seconds) // 2],
        "environment": {key: about[key] for key in MACHINE},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", required=True, help="folder with the small models")
    parser.add_argument("--work", type=Path, default=Path("outputs/real/starts"))
    parser.add_argument("--only", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--out", type=Path, default=Path("docs/results/real/starts.json"))
    parser.add_argument("--note", default="", help="what a reader has to know of the models")
    args = parser.parse_args()
    for name in args.only:
        run(name, args.small, args.work / name)
        ask_new_words(args.work / name)
    done = [n for n in STARTS if (args.work / n / "outer" / "links" / "links.json").is_file()]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    starts = earlier.get("starts", {}) | {name: describe(args.work / name) for name in done}
    starts = {name: starts[name] for name in STARTS if name in starts}
    note = args.note or earlier.get("note", "")
    write_json(args.out, {"note": note, "goal": GOAL, "starts": starts})
    print(args.out)


if __name__ == "__main__":
    main()
