"""The true sizes of the released sequential light system on one CUDA GPU, random weights, bfloat16.

    python benchmarks/gpu.py [--out docs/results/bench_gpu.json]

Needs no hub and no package beyond torch, transformers, accelerate and hydra; below 10 minutes.
`--device cpu --tiny` runs the same code on toy shapes, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from outer import compare
from transformers import PretrainedConfig

from rmas_train.channels import LatentChannel
from rmas_train.compose import compose
from rmas_train.config import Config, LinksConfig
from rmas_train.data.rows import Table
from rmas_train.links.link_set import LinkSet, draw_links
from rmas_train.objectives.outer import OuterObjective
from rmas_train.objectives.outer_options import Backward
from rmas_train.planning.plan import make_plan
from rmas_train.planning.rates import measured_rates
from rmas_train.planning.shapes import (
    CountedTokenizer,
    Tokens,
    read_shape,
    shape_agent,
    shape_team,
)
from rmas_train.planning.token_counts import find_tokens
from rmas_train.recursion import Recursion, Team, last_call
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json
from rmas_train.topology import build_topology

PROMPT, SUFFIX, TEXT, LATENT, ROUNDS, BATCH = 400, 20, 100, 32, 3, 4
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 500}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


class Words(CountedTokenizer):
    """Every word is token 1."""

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in texts]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def build(device: str, tiny: bool) -> tuple[Config, Team, LinkSet]:
    config = compose(
        [
            "agents=sequential_light_shapes",
            "experiment=none",
            f"plan.prefix_tokens={PROMPT}",
            f"plan.suffix_tokens={SUFFIX}",
            f"plan.answer_tokens={TEXT}",
            f"rounds={ROUNDS}",
            f"latent_length={LATENT}",
            "training.outer.recompute=agent",
        ]
    )
    topology = build_topology(config.topology, config.agents)
    torch.manual_seed(0)
    agents = {}
    for name in topology.agents:
        shape: PretrainedConfig = deepcopy(read_shape(name, config.agents[name]))
        if tiny:
            shape.update(TINY | {"layer_types": ["full_attention"] * 2})
        agent = shape_agent(name, shape, config.agents[name], device=device)
        agents[name] = replace(agent, tokenizer=Words())
    tokens = dict.fromkeys(agents, Tokens(PROMPT, SUFFIX, TEXT))
    widths = {name: agent.width for name, agent in agents.items()}
    options = LinksConfig(init="default")
    links = draw_links(options, topology, widths, dict.fromkeys(widths, 1.0), seed=0).to(device)
    return config, shape_team(agents, topology, options, tokens), links


def table(rows: int) -> Table:
    text = " ".join(["word"] * TEXT)
    row = {"answer": text, "plan": text, "refined_plan": text}
    return Table(Path("benchmark"), [dict(row) for _ in range(rows)])


def timed(run: Callable[[], Any], device: str, repeats: int = 3) -> list[float]:
    """Seconds, the first one left out."""
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return found[1:]


def outer_step(team: Team, links: LinkSet, rounds: int, device: str) -> dict[str, Any]:
    """A true-rollout step with `checkpoint: agent`: seconds, and bytes at the peak above before."""
    backward = Backward(recompute=True)
    objective = OuterObjective(team, links, table(BATCH), rounds, LATENT, backward=backward)

    def step() -> None:
        objective(list(range(BATCH)), rounds).sum().backward()

    step()
    before = 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds = timed(step, device, repeats=2)
    peak = torch.cuda.max_memory_allocated() - before if device == "cuda" else None
    return {"rounds": rounds, "seconds": seconds, "peak_bytes": peak}


@torch.no_grad()
def text_speed(team: Team, links: LinkSet, device: str) -> dict[str, Any]:
    """Greedy text of the decoder after an unroll."""
    recursion = Recursion(team, LatentChannel(links, LATENT))
    decoder = last_call(recursion.unroll(table(BATCH).rows, 1))
    return {"tokens": TEXT, "seconds": timed(lambda: decoder.write(TEXT), device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/bench_gpu.json"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, ROUNDS, 8])
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    config, team, links = build(args.device, args.tiny)
    rates = measured_rates(torch.device(args.device), torch.bfloat16)
    rate = {"flops_per_second": rates[0], "bytes_per_second": rates[1]}
    found: dict[str, Any] = {"rates": rate, "environment": environment(), "outer_steps": []}

    def keep(**more: Any) -> None:
        """Written after each measurement, so that a run cut short leaves what it has."""
        found.update(more)
        write_json(args.out, found)
        print(*more, flush=True)

    keep(text=text_speed(team, links, args.device))
    for rounds in args.rounds:
        step = outer_step(team, links, rounds, args.device)
        keep(outer_steps=[*found["outer_steps"], step])
    at = {step["rounds"]: step for step in found["outer_steps"]}
    if args.device == "cuda" and {1, 8} <= set(at):
        keep(memory_r8_over_r1=at[8]["peak_bytes"] / at[1]["peak_bytes"])
    if not args.tiny and ROUNDS in at:
        plan = make_plan(config, find_tokens(config), BATCH)
        keep(
            plan={"total": plan.total, "activations": plan.activations},
            time_over_floor=median(at[ROUNDS]["seconds"]) / plan.seconds(*rates),
        )
    released = compare(team, links, table(BATCH), LATENT, ROUNDS, 2, "released")
    keep(
        released=released,
        outer_vs_released=released["ratio"],
        outer_vs_released_over_count=released["ratio_over_count"],
    )
    print(json.dumps({k: v for k, v in found.items() if isinstance(v, float)}))


if __name__ == "__main__":
    main()
