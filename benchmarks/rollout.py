"""The latent rollout with its KV cache against running the whole sequence again for each step.

    python benchmarks/rollout.py [--out outputs/bench/rollout.json]

Both sides in one process, alternating, batch 1, no gradient; medians and all single times.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
from systems import Size, build, rows
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.engine.inputs import Batch, embed_prompts, positions
from rmas_train.engine.rollout import rollout
from rmas_train.links.modules import Link
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

SIZE = Size(prompt=512)
LENGTHS = (8, 32, 80)


def rerun(agent: Agent, inner: Link, batch: Batch, latent_length: int) -> Tensor:
    """What the rollout computes, one whole forward per latent step: latents (B, M, D)."""
    latents, embeds, real = [], batch.embeds, batch.real
    for _ in range(latent_length):
        latents.append(inner(agent.hidden(embeds, positions(real), real)[:, -1]))
        embeds = torch.cat([embeds, latents[-1][:, None]], dim=1)
        real = torch.cat([real, real.new_ones(len(real), 1)], dim=1)
    return torch.stack(latents, dim=1)


@torch.no_grad()
def measure(latent_length: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each side; stops where the two disagree."""
    team, links = build(SIZE)
    agent, inner = team.agents["planner"], links.inner["planner"]
    assert isinstance(inner, Link)
    prompts = team.prompts["planner"].encode(list(rows(1, SIZE).rows), 1, first=True)
    batch = embed_prompts(agent, prompts, {})
    seconds: dict[str, list[float]] = {"rollout": [], "rerun": []}
    for _ in range(repeats + 1):
        began = time.perf_counter()
        _, fast = rollout(agent, inner, batch, latent_length, fast=True)
        middle = time.perf_counter()
        slow = rerun(agent, inner, batch, latent_length)
        seconds["rerun"].append(time.perf_counter() - middle)
        seconds["rollout"].append(middle - began)
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)
    return {side: times[1:] for side, times in seconds.items()}  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/rollout.json"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    found = {}
    for latent_length in LENGTHS:
        times = measure(latent_length, args.repeats)
        ratio = median(times["rerun"]) / median(times["rollout"])
        found[str(latent_length)] = {"ratio": ratio, "seconds": times}
        print(f"m = {latent_length}: rollout is {ratio:.1f} times as fast as whole re-runs")
    result = {"rollout_vs_rerun": found["80"]["ratio"], "latent_lengths": found}
    print(json.dumps({"rollout_vs_rerun": result["rollout_vs_rerun"]}))
    write_json(args.out, result | {"size": asdict(SIZE), "environment": environment()})


if __name__ == "__main__":
    main()
