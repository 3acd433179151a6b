"""Time of the outer step against batch size, latent length and rounds, and their slopes.

    python benchmarks/slopes.py [--out outputs/bench/slopes.json]

Beside each stands what the paper's complexity proposition (3.1) predicts for the latent system,
R * N * (m * d^2 + (t + m) * d^2 + (t + m)^2 * d), as the same ratio over the first setting; t is
the prompt's length. It knows neither caches nor frozen prefixes.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from systems import NAMES, Size, build, rows

from rmas_train.objectives.outer import OuterObjective
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

BASE = {"batch": 4, "latent_length": 16, "rounds": 2}
SWEEPS = {"batch": (1, 2, 4, 8), "latent_length": (4, 8, 16, 32), "rounds": (1, 2, 4)}


def predicted(size: Size, batch: int, rounds: int) -> float:
    """The proposition's terms, up to a constant."""
    m, t, d = size.latent_length, size.prompt, size.width
    return batch * rounds * len(NAMES) * (m * d**2 + (t + m) * d**2 + (t + m) ** 2 * d)


def seconds(size: Size, batch: int, rounds: int, repeats: int) -> list[float]:
    team, links = build(size)
    objective = OuterObjective(team, links, rows(batch, size), rounds, size.latent_length)
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        objective(list(range(batch)), rounds).sum().backward()
        found.append(time.perf_counter() - began)
    return found[1:]


def sweep(what: str, size: Size, repeats: int) -> dict[str, Any]:
    """Times at each value, their least-squares line, and the proposition's ratios."""
    points: dict[str, list[float]] = {}
    theory = []
    for value in SWEEPS[what]:
        setting = BASE | {what: value}
        sized = replace(size, latent_length=setting["latent_length"])
        points[str(value)] = seconds(sized, setting["batch"], setting["rounds"], repeats)
        theory.append(predicted(sized, setting["batch"], setting["rounds"]))
    times = [median(of) for of in points.values()]
    slope, start = np.polyfit(SWEEPS[what], times, 1)
    return {
        "seconds": points,
        "seconds_per_unit": float(slope),
        "seconds_at_zero": float(start),
        "over_first": [t / times[0] for t in times],
        "proposition_over_first": [t / theory[0] for t in theory],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/slopes.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="larger sizes, no time limit")
    args = parser.parse_args()
    size = Size(width=512, layers=8, prompt=400) if args.full else Size()
    found = {what: sweep(what, size, args.repeats) for what in SWEEPS}
    for what, of in found.items():
        ratios = ", ".join(f"{r:.2f}" for r in of["over_first"])
        theory = ", ".join(f"{r:.2f}" for r in of["proposition_over_first"])
        print(f"{what} {list(SWEEPS[what])}: times {ratios} of the first; proposition {theory}")
    slopes = {f"slope_{what}_seconds": of["seconds_per_unit"] for what, of in found.items()}
    print(json.dumps(slopes))
    setting = {"size": asdict(size), "base": BASE, "environment": environment()}
    write_json(args.out, slopes | {"sweeps": found} | setting)


if __name__ == "__main__":
    main()
