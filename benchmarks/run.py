"""Every benchmark in a process of its own; ``outputs/bench/results.json`` holds their ratios.

python benchmarks/run.py [--out outputs/bench]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rmas_train.support.files import write_json

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("rollout", "memory", "plan", "outer", "slopes", "answering")
HAVE_FULL = ("outer", "slopes", "answering")
KEYS = (
    "rollout_vs_",
    "memory_r8_",
    "plan_over_",
    "outer_vs_",
    "outer_rollout_",
    "slope_",
    "answering_",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--full", action="store_true", help="larger sizes, no time limit")
    args = parser.parse_args()
    out, ratios = args.out, dict[str, Any]()
    for name in BENCHMARKS:
        file = out / f"{name}.json"
        command = [sys.executable, HERE / f"{name}.py", "--out", file]
        if args.full and name in HAVE_FULL:
            command.append("--full")
        subprocess.run(command, check=True)
        found = json.loads(file.read_text())
        ratios |= {key: found[key] for key in found if key.startswith(KEYS)}
    write_json(out / "results.json", ratios)
    print(f"results: {out / 'results.json'}")


if __name__ == "__main__":
    main()
