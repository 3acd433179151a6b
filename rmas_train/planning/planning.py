"""Stage plan: lengths from the data, rates of the machine, advice; a table and a file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import make_prompt, tokenise
from rmas_train.config import Config
from rmas_train.data.rows import read_table
from rmas_train.errors import AgentError, ConfigError
from rmas_train.planning.plan import Plan, agent_sizes, make_plan
from rmas_train.planning.shapes import Tokens
from rmas_train.planning.traffic import Sizes, communication
from rmas_train.recipes.prepare import prepare
from rmas_train.reporting.plan_table import print_plan
from rmas_train.runs.folder import environment, stage_folder
from rmas_train.runs.load import prompt_texts
from rmas_train.support.files import write_json
from rmas_train.support.log import say
from rmas_train.support.resources import find_path
from rmas_train.topology import Topology, build_topology

GIB = 2**30
SAFE = 0.7  # share of a device's memory that a plan may fill: allocators keep some


def find_tokens(config: Config) -> dict[str, Tokens]:
    """Lengths from ``plan.*_tokens``, or of the longest training rows in the agents' tokens.

    Raises:
        ConfigError: neither is there.
    """
    plan = config.plan
    given = (plan.prefix_tokens, plan.suffix_tokens, plan.answer_tokens)
    names = list(config.topology.order)
    if all(n is not None for n in given):
        return {name: Tokens(given[0] or 0, given[1] or 0, given[2] or 0) for name in names}
    if not config.data.folder:
        raise ConfigError(
            "stage=plan needs the lengths of your rows: set plan.prefix_tokens, plan.suffix_tokens "
            "and plan.answer_tokens, or data.folder with your rows."
        )
    prepare(config.data, config.seed)
    rows = read_table(Path(config.data.folder) / config.data.train).rows
    topology = build_topology(config.topology, config.agents)
    return {name: _measured(config, name, topology, rows) for name in names}


def _measured(config: Config, name: str, topology: Topology, rows: Sequence[Any]) -> Tokens:
    where = config.agents[name]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(find_path(where.model) or where.model),
            revision=where.revision,
            trust_remote_code=where.trust_remote_code,
        )
    except (OSError, ValueError):
        tokenizer = None
    if tokenizer is None or tokenizer.chat_template is None:
        raise AgentError(
            f"agents.{name}.model={where.model} has no tokenizer with a chat template; set "
            "plan.prefix_tokens, plan.suffix_tokens and plan.answer_tokens."
        )
    agent = Agent(name, None, tokenizer, where.model)
    texts = prompt_texts(config, [name])[name]
    prompt = make_prompt(agent, texts, f"{config.data.prompts}/{name}.yaml", topology.sources(name))
    encoded = prompt.encode(list(rows), 1, first=False)
    answers = tokenise(agent, [str(row["answer"]) for row in rows], plain=True)
    cuts = [p.slots[0][1] if p.slots else len(p.ids) for p in encoded]
    suffix = max(len(p.ids) - c for p, c in zip(encoded, cuts, strict=True))
    return Tokens(max(cuts), suffix, 1 + max(map(len, answers)))


def measured_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations per second of a large matrix product, bytes per second of reading a matrix."""
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    vector = a[:, :1].clone()
    product = _best(device, lambda: a @ a)
    reading = _best(device, lambda: a @ vector)
    return 2 * size**3 / product, a.numel() * a.element_size() / reading


def _best(device: torch.device, work: Any, repeats: int = 10) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def run_plan(config: Config, device: torch.device) -> None:
    """Plan for each number of devices; prints a table, writes ``run_dir/plan/plan.json``."""
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


def settle_recompute(config: Config, device: torch.device, world: int) -> str:
    """``recompute: auto``: ``none`` where the step fits into the device without it."""
    stage = config.training.outer
    if stage.recompute != "auto":
        return stage.recompute
    rows = min(stage.micro_batch_size or stage.batch_size, -(-stage.batch_size // world))
    plan = make_plan(config, find_tokens(config), rows)
    limit = SAFE * _memory_of(device)
    choice = "none" if plan.total <= limit else "agent"
    needs, has = plan.total / GIB, limit / GIB
    say(f"recompute=auto: {choice} (without: {needs:.3g} GiB planned, {has:.3g} GiB allowed)")
    return choice


def _memory_of(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
