"""`stage=plan`'s peak memory against the measured one, three settings, each in its own process.

    python benchmarks/plan.py [--out outputs/bench/plan.json]

Measured: resident memory above the level after a warm, tiny system, through building, two optimizer
steps and back; Linux only. The plan sees configs and token counts, no weights.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from memory import resident
from systems import Size, build, rows

from rmas_train.compose import compose
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.plan import make_plan
from rmas_train.planning.token_counts import find_tokens
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

SETTINGS: dict[str, tuple[Size, int, int, str]] = {
    "agent": (Size(), 4, 3, "agent"),
    "none": (Size(), 4, 2, "none"),
    "wide": (Size(width=512, layers=6, prompt=512, latent_length=32), 2, 2, "agent"),
}


# The plan counts what is allocated. By default the C library keeps freed memory for later.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def one(setting: str, variables: dict[str, str]) -> int:
    """``measure`` in a process of its own, with these environment variables."""
    command = [sys.executable, __file__, "--one", setting]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def measure(setting: str) -> int:
    """Bytes at the peak of two optimizer steps above the warm level."""
    size, batch, rounds, checkpoint = SETTINGS[setting]
    train(Size(width=64, layers=1, prompt=8, latent_length=2), 2, rounds, checkpoint)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    train(size, batch, rounds, checkpoint)
    return resident("VmHWM") - before


def train(size: Size, batch: int, rounds: int, checkpoint: str) -> None:
    team, links = build(size)
    backward = Backward(recompute=checkpoint == "agent")
    table = rows(batch, size)
    objective = OuterObjective(team, links, table, rounds, size.latent_length, backward=backward)
    optimizer = torch.optim.AdamW([p for p in links.parameters() if p.requires_grad])
    for _ in range(2):
        optimizer.zero_grad()
        objective(list(range(batch)), rounds).sum().backward()
        optimizer.step()


def planned(setting: str) -> float:
    """Bytes that the plan says, from the same shapes."""
    size, batch, rounds, checkpoint = SETTINGS[setting]
    team, _ = build(size)
    with tempfile.TemporaryDirectory() as folder:
        typed = [f"agents.{name}.model={folder}/{name}" for name in team.agents]
        for name, agent in team.agents.items():
            agent.model.config.save_pretrained(f"{folder}/{name}")
        prompt = team.prompts["planner"].encode(list(rows(1, size).rows), 1, first=False)[0]
        cut = prompt.slots[0][1]
        lengths = [cut, max(1, len(prompt.ids) - cut), 3]
        keys = ("prefix_tokens", "suffix_tokens", "answer_tokens")
        typed += [f"plan.{key}={n}" for key, n in zip(keys, lengths, strict=True)]
        options = [f"rounds={rounds}", f"latent_length={size.latent_length}"]
        config = compose([*typed, *options, f"training.outer.recompute={checkpoint}"])
        return make_plan(config, find_tokens(config), batch).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/plan.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=SETTINGS)
    args = parser.parse_args()
    if args.one:
        print(measure(args.one))
        return
    found: dict[str, dict[str, Any]] = {}
    for name, (size, batch, rounds, checkpoint) in SETTINGS.items():
        peaks = {
            "returning": [one(name, RETURNING) for _ in range(args.repeats)],
            "default": [one(name, {})],
        }
        plan = planned(name)
        found[name] = {
            "planned": plan,
            "measured": peaks["returning"],
            "ratio": plan / median(peaks["returning"]),
            "measured_default_allocator": peaks["default"],
            "ratio_default_allocator": plan / median(peaks["default"]),
            "size": asdict(size) | {"batch": batch, "rounds": rounds, "checkpoint": checkpoint},
        }
        medians = {key: f"{median(of) / 2**20:.0f}" for key, of in peaks.items()}
        print(f"{name}: planned {plan / 2**20:.0f} MiB, measured {medians}")
    worst = max((setting["ratio"] for setting in found.values()), key=lambda r: abs(r - 1))
    print(json.dumps({"plan_over_measured_worst": worst}))
    write_json(
        args.out,
        {"plan_over_measured_worst": worst, "settings": found, "environment": environment()},
    )


if __name__ == "__main__":
    main()
