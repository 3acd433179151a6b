"""Peak memory of one outer step (forward and backward) against rounds, each in its own process.

    python benchmarks/memory.py [--out outputs/bench/memory.json] [--rounds 1 2 8]

Peaks are resident memory above the loaded, warm level (Linux: VmHWM, reset through clear_refs).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from systems import Size, build, rows

from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

SIZE, BATCH = Size(), 2


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status; this benchmark needs Linux")


def measure(rounds: int, checkpoint: str) -> int:
    """Bytes at the peak of a step above the level after a warm, small one."""
    torch.set_num_threads(2)
    team, links = build(SIZE)
    table = rows(BATCH, SIZE)
    backward = Backward(recompute=checkpoint == "agent")
    objective = OuterObjective(team, links, table, rounds, SIZE.latent_length, backward=backward)
    small = OuterObjective(team, links, rows(1, Size(prompt=8)), rounds, 2)
    small([0], rounds).sum().backward()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    objective(list(range(BATCH)), rounds).sum().backward()
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/memory.json"))
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ROUNDS", "CHECKPOINT"))
    args = parser.parse_args()
    if args.one:
        print(measure(int(args.one[0]), args.one[1]))
        return
    found: dict[str, dict[str, list[int]]] = {}
    for checkpoint in ("agent", "none"):
        for rounds in args.rounds:
            command = [sys.executable, __file__, "--one", str(rounds), checkpoint]
            peaks = [
                int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                for _ in range(args.repeats)
            ]
            found.setdefault(checkpoint, {})[str(rounds)] = peaks
            print(f"checkpoint {checkpoint} rounds {rounds}: {[p // 2**20 for p in peaks]} MiB")
    least, most = str(min(args.rounds)), str(max(args.rounds))
    ratios = {
        name: median(found[key][most]) / median(found[key][least])
        for name, key in (("memory_r8_over_r1", "agent"), ("memory_r8_over_r1_none", "none"))
    }
    print(json.dumps(ratios))
    setting = {"size": asdict(SIZE), "batch": BATCH}
    write_json(args.out, ratios | {"bytes": found} | setting | {"environment": environment()})


def median(values: list[int]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
