"""The table of docs/systems.md: links counted, memory planned, for each published system.

    python scripts/systems_table.py [--json docs/results/systems.json]

Everything is composed from ``experiment=<system> agents=<system>_shapes`` and counted on the meta
device; no weights and no hub are needed. Plans: two rounds, as memory hardly grows with more under
recompute=agent; latent length 16, prompts of 400 + 40 tokens, answers of 400, 8 rows a step: 1 on
each of 8 GPUs, counted; 8 on one GPU, the activations of one times eight.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rmas_train.compose import compose
from rmas_train.planning.plan import Plan, make_plan
from rmas_train.planning.shapes import Tokens, read_shape, shape_agent, shape_links
from rmas_train.runs.session import environment
from rmas_train.support.files import write_json
from rmas_train.topology import build_topology

SYSTEMS = ("sequential_light", "sequential_scaled", "mixture", "distillation", "deliberation")
TOKENS = Tokens(prefix=400, suffix=40, answer=400)
GIB = 2**30


def describe(system: str) -> dict[str, Any]:
    config = compose(
        [
            f"experiment={system}",
            f"agents={system}_shapes",
            "training.outer.recompute=agent",
            "rounds=2",
            "latent_length=16",
        ]
    )
    real = compose([f"experiment={system}"])
    topology = build_topology(config.topology, config.agents)
    shapes = {n: read_shape(n, config.agents[n]) for n in topology.agents}
    agents = {n: shape_agent(n, shapes[n], config.agents[n]) for n in topology.agents}
    links = shape_links(config.links, topology, agents).links()
    plan = make_plan(config, dict.fromkeys(topology.agents, TOKENS), 1)
    return {
        "system": system,
        "agents": {n: real.agents[n].model for n in topology.agents},
        "widths": {n: agents[n].width for n in topology.agents},
        "edges": [e.key for e in topology.edges],
        "rounds": config.rounds,
        "latent_length": config.latent_length,
        "parameters": {n: sum(p.numel() for p in link.parameters()) for n, link in links.items()},
        "plans": {str(8 // rows): asdict(p) | {"total": p.total} for rows, p in by_rows(plan)},
    }


def by_rows(plan: Plan) -> list[tuple[int, Plan]]:
    return [
        (rows, replace(plan, rows=rows, activations=plan.activations * rows)) for rows in (8, 1)
    ]


def millions(record: dict[str, Any], kind: str) -> float:
    found = record["parameters"].items()
    return sum(n for name, n in found if name.startswith(kind)) / 1e6


def row(record: dict[str, Any]) -> str:
    names = "<br>".join(f"{n}: {m}" for n, m in record["agents"].items())
    plans = record["plans"]
    memory = " / ".join(f"{plans[d]['total'] / GIB:.1f}" for d in ("1", "8"))
    inner, outer = millions(record, "inner"), millions(record, "outer")
    weights = plans["1"]["agents"] / GIB
    cells = [record["system"], names, "<br>".join(record["edges"])]
    cells += [f"{inner:.1f}", f"{outer:.1f}", f"{weights:.1f}", memory]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything there")
    args = parser.parse_args()
    records = []
    for system in SYSTEMS:
        records.append(describe(system))
        print(f"counted {system}", file=sys.stderr, flush=True)
    if args.json:
        command = f"python {' '.join(sys.argv)}"
        write_json(
            args.json, {"command": command, "systems": records} | {"environment": environment()}
        )
    print("| system | agents | edges | inner, M | outer, M | agents, GiB | 1 / 8 GPUs, GiB each |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(map(row, records)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
