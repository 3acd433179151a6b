"""Bytes that one agent call keeps for backward, against prompt and latent length.

    python benchmarks/saved_bytes.py [--out docs/results/bench_saved_bytes.json]

The agent is the benchmark's planner at batch 1; 16 tokens follow the frozen prefix. Weights and the
prefix itself are left out; `library` is the library's own cache over the whole prompt.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from systems import Size, build
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.engine.inputs import embed_ids
from rmas_train.engine.prompt_batch import read_prefix
from rmas_train.engine.rollout import rollout
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json

PROMPTS, LENGTHS, REST = (128, 512), (8, 32, 80), 16


def kept(agent: Agent, inner: Any, prompt: int, latent_length: int, blocks: bool) -> int:
    """Bytes of distinct storages that autograd holds after the call."""
    agent = replace(agent, attends_to_blocks=blocks)
    ids = [3 + i % 20 for i in range(prompt)]
    cut = prompt - REST if blocks else 0
    prefix = read_prefix(agent, [ids[:cut]]) if blocks else None
    batch = embed_ids(agent, [ids[cut:]], skip=[cut])
    batch = replace(batch, embeds=batch.embeds.clone().requires_grad_())
    known = {p.untyped_storage().data_ptr() for p in agent.model.parameters()}
    if prefix is not None:
        known |= {x.untyped_storage().data_ptr() for state in prefix.states for x in state}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor  # held, so no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rollout(agent, inner, batch, latent_length, prefix)
    return sum(t.untyped_storage().nbytes() for key, t in found.items() if key not in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/bench_saved_bytes.json"))
    args = parser.parse_args()
    team, links = build(Size())
    agent, inner = team.agents["planner"], links.inner["planner"]
    found = {}
    for prompt in PROMPTS:
        for latent_length in LENGTHS:
            sides = {
                side: kept(agent, inner, prompt, latent_length, side == "blocks")
                for side in ("blocks", "library")
            }
            found[f"prompt {prompt}, m = {latent_length}"] = sides
            print(f"prompt {prompt}, m = {latent_length}: {sides}")
    write_json(args.out, {"bytes": found, "size": asdict(Size()), "environment": environment()})


if __name__ == "__main__":
    main()
