"""ZeRO-3 on two CPU processes against one process, several times, with every exit code.

    python scripts/zero3_check.py --runs 5 --json docs/results/zero3.json

Not a test of the suite: on CPUs DeepSpeed's ZeRO-3 sometimes ends with SIGABRT ("terminate called
without an active exception") after all work is done and saved, which is seen in the exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rmas_train.runs.session import environment

ROOT = Path(__file__).resolve().parent.parent
TYPED = [
    "experiment=relay",
    "rounds=2",
    "evaluation.systems=[shuffled]",
    "evaluation.max_rows=20",
    *(f"training.{s}.{o}" for s in ("inner", "outer") for o in ("steps=8", "batch_size=8")),
    *(f"training.{s}.log_every=1" for s in ("inner", "outer")),
]


def run(run_dir: Path, processes: int) -> int:
    """One pipeline; its exit code."""
    command = [sys.executable, "-m"]
    typed = [*TYPED, f"run_dir={run_dir}"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m"]
        typed += ["runtime=zero3"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    return subprocess.run([*command, "rmas_train", *typed], env=env, capture_output=True).returncode


def largest_difference(a: Path, b: Path) -> float:
    """Of losses, relative, over both stages; all lines have to be there."""
    worst = 0.0
    for stage in ("inner", "outer"):
        one, two = (
            [json.loads(line)["loss"] for line in (r / stage / "metrics.jsonl").open()]
            for r in (a, b)
        )
        worst = max([worst, *(abs(x - y) / abs(x) for x, y in zip(one, two, strict=True))])
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="zero3"))
    found: list[dict[str, Any]] = []
    try:
        alone = work / "alone" / "run"
        assert run(alone, 1) == 0
        for i in range(options.runs):
            two = work / str(i) / "run"
            code = run(two, 2)
            finished = (two / "results.json").is_file()
            difference = largest_difference(alone, two) if finished else None
            record = {"exit_code": code, "finished": finished, "loss_difference": difference}
            found.append(record)
            print(json.dumps(record), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    options.json.write_text(
        json.dumps({"runs": found, "environment": environment()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
