"""Train the relay with each gradient mode, the same otherwise, and judge it on the validation rows.

    python scripts/gradient_report.py [--out docs/results/gradients_training.json] [--threads 2]

Runs `python -m rmas_train` once per mode; a mode that stands in the file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

MODES = {
    "full": [],
    "full, clip_message 3": ["clip_message=3"],
    "window 1": ["gradient=window", "gradient_steps=1"],
    "window 1, clip_message 3": ["gradient=window", "gradient_steps=1", "clip_message=3"],
    "first_step": ["gradient=first_step"],
    "parallel 1": ["gradient=parallel", "gradient_steps=1"],
    "last round": ["gradient_rounds=1"],
    "last 2 rounds": ["gradient_rounds=2"],
    "last round, clip_message 3": ["gradient_rounds=1", "clip_message=3"],
    "last 2 rounds, clip_message 3": ["gradient_rounds=2", "clip_message=3"],
}
SETTINGS = {
    "relay_scrambled": ["steps=150", "lr=6e-4", "batch_size=96"],
    "relay_dialect": ["steps=200", "lr=1e-3", "batch_size=64", "depth=uniform"],
}
COMMON = ["data.test=valid.jsonl", "evaluation.systems=[start]", "rounds=3"]


def rmas(*options: str) -> None:
    command = [sys.executable, "-m", "rmas_train", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def one(setting: str, mode: str, folder: Path, threads: int) -> dict[str, Any]:
    """Train and evaluate; accuracy within reach by depth, last losses, seconds per step."""
    inner, run = folder / setting / "inner_run", folder / setting / re.sub(r"\W+", "_", mode)
    common = [f"experiment={setting}", f"runtime.threads={threads}", *COMMON]
    if not (inner / "inner" / "links").is_dir():
        rmas(*common, "stage=inner", f"run_dir={inner}")
    outer = ["clip_message=0", *SETTINGS[setting], *MODES[mode]]
    typed = {o.split("=")[0]: f"training.outer.{o}" for o in outer}  # the last one counts
    links = f"inner={inner / 'inner' / 'links'}"
    rmas(*common, "stage=outer", links, f"run_dir={run}", *typed.values())
    rmas("stage=eval", f"run={run}", "rounds=1,2,3", *COMMON[:2])
    lines = (run / "outer" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    rows = json.loads((run / "eval" / "results.json").read_text())["rows"]
    reach = {(r["control"] or "trained", r["rounds"]): r["accuracy_within_reach"] for r in rows}
    return {
        "options": list(typed.values()),
        "trained": [reach["trained", depth] for depth in (1, 2, 3)],
        "start": [reach["start", depth] for depth in (1, 2, 3)],
        "seconds_per_step": {
            depth: median(s["seconds"] for s in steps if s["rounds"] == depth)
            for depth in sorted({s["rounds"] for s in steps})
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/gradients_training.json"))
    parser.add_argument("--runs", type=Path, default=Path("outputs/gradients"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for setting in SETTINGS:
        for mode in MODES:
            if mode in found.setdefault(setting, {}):
                continue
            found[setting][mode] = one(setting, mode, args.runs, args.threads)
            print(setting, mode, found[setting][mode]["trained"], flush=True)
            write_json(args.out, found | {"environment": environment()})


if __name__ == "__main__":
    main()
