"""Stage plan: a plan for each number of devices, with advice; a table and a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from rmas_train.config import Config
from rmas_train.planning.plan import Plan, agent_sizes, make_plan
from rmas_train.planning.rates import measured_rates
from rmas_train.planning.token_counts import find_tokens
from rmas_train.planning.traffic import Sizes, communication
from rmas_train.reporting.plan_table import print_plan
from rmas_train.runs.session import environment, stage_folder
from rmas_train.support.files import write_json
from rmas_train.support.output import say

GIB = 2**30


def run_plan(config: Config, device: torch.device) -> None:
    """Plan for each number of devices; prints a table, writes ``run_dir/plan/plan.json``."""
    config = replace(config, agents={n: a.on(device.type) for n, a in config.agents.items()})
    stage, wanted = config.training.outer, config.plan.devices
    say("counting on the meta device; large systems take a minute or two")
    tokens = find_tokens(config)
    rows = {n: min(stage.micro_batch_size or 2**31, -(-stage.batch_size // n)) for n in wanted}
    plans = {of: make_plan(config, tokens, of) for of in sorted(set(rows.values()))}
    dtype = getattr(torch, next(iter(config.agents.values())).dtype)
    rates = measured_rates(device, dtype)
    if config.plan.tflops is not None:
        rates = config.plan.tflops * 1e12, rates[1]
    if config.plan.gib_per_second is not None:
        rates = rates[0], config.plan.gib_per_second * GIB
    sizes = agent_sizes(config)
    lines = [_line(config, n, plans[of], rates, sizes) for n, of in rows.items()]
    write_json(
        stage_folder(config, "plan") / "plan.json",
        {
            "schema": 1,
            "plans": lines,
            "tokens": {name: asdict(of) for name, of in tokens.items()},
            "rates": {"flops_per_second": rates[0], "bytes_per_second": rates[1]},
            "environment": environment(),
        },
    )
    print_plan(lines, config.plan.device_gib)


def _line(
    config: Config,
    devices: int,
    plan: Plan,
    rates: tuple[float, float],
    sizes: Mapping[str, Sizes],
) -> dict[str, Any]:
    """One number of devices in plan.json."""
    micro_batches = -(-config.training.outer.batch_size // (devices * plan.rows))
    moved = communication(sizes, plan.layer_gathers, plan.gradients, micro_batches, devices)
    return asdict(plan) | {
        "devices": devices,
        "micro_batches": micro_batches,
        "total": plan.total,
        "fits": plan.total <= config.plan.device_gib * GIB,
        "seconds": micro_batches * plan.seconds(*rates),
        "bytes_to_reduce": plan.gradients if devices > 1 else 0,
        "communication": asdict(moved),
        "advice": advice(config, plan, moved.sharded_weights),
    }


def advice(config: Config, plan: Plan, sharded: float) -> list[str]:
    """What to change where the plan does not fit; the cheapest first.

    Args:
        config, plan: what does not fit.
        sharded: bytes of agents' weights on each device under ``placement=sharded``.
    """
    limit, stage = config.plan.device_gib * GIB, config.training.outer
    if plan.total <= limit:
        return []
    found = []
    if stage.recompute == "none":
        found.append("training.outer.recompute=agent: activations no longer grow with rounds")
    fitting = plan.largest_rows(limit)
    if fitting:
        found.append(f"training.outer.micro_batch_size={fitting}: fits, by proportion")
    elif config.latent_length > 1:
        found.append(f"latent_length below {config.latent_length}: fewer steps are kept")
    if any(agent.dtype != "bfloat16" for agent in config.agents.values()):
        found.append("agents.<name>.dtype=bfloat16: half the weights; links stay float32")
    if plan.static > limit:
        found.append(
            "weights alone do not fit: runtime.placement=per_agent (an agent on each device), or "
            f"sharded ({sharded / GIB:.3g} GiB of agents on each device, docs/communication.md)"
        )
    return found
