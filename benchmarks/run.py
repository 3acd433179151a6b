"""Every benchmark in a process of its own; ``outputs/bench/results.json`` holds their ratios.

python benchmarks/run.py [--out outputs/bench]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rmas_train.files import write_json

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("rollout", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    out = parser.parse_args().out
    ratios: dict[str, float] = {}
    for name in BENCHMARKS:
        file = out / f"{name}.json"
        subprocess.run([sys.executable, HERE / f"{name}.py", "--out", file], check=True)
        found = json.loads(file.read_text())
        ratios |= {key: value for key, value in found.items() if isinstance(value, float)}
    write_json(out / "results.json", ratios)
    print(f"results: {out / 'results.json'}")


if __name__ == "__main__":
    main()
