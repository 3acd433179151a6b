"""Stage plan: does the outer stage fit, what will a step cost? Before any weights are loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from rmas_train.agents.agent import Agent
from rmas_train.agents.answer import answer_loss
from rmas_train.agents.prompts import load_prompt, tokenise
from rmas_train.analysis.cost import Cost, count, extrapolate
from rmas_train.analysis.shapes import (
    Tokens,
    layer_unit,
    read_shape,
    shape_agent,
    shape_links,
    shape_team,
)
from rmas_train.config import Config, OuterConfig
from rmas_train.data.recipes import prepare
from rmas_train.data.rows import Table, read_table
from rmas_train.errors import AgentError, ConfigError
from rmas_train.files import write_json
from rmas_train.log import say
from rmas_train.recursion import unroll
from rmas_train.reporting.plan_table import print_plan
from rmas_train.resources import find_path
from rmas_train.stages.outer import OuterObjective, backward_of
from rmas_train.stages.run_folder import environment, stage_folder
from rmas_train.topology import Topology, build_topology

GIB = 2**30
ADAMW_STATES = 2


@dataclass(frozen=True)
class Plan:
    """One device's share of an outer step; bytes, operations, seconds.

    Attributes:
        rows: of a micro-batch.
        agents, links, gradients, optimizer: what stays: weights, and of trainable links the
            gradients and AdamW's two states.
        activations: the peak of everything else.
        flops: of a micro-batch by kind, see ``analysis.cost``.
        latent_reads: bytes of weights that its single-position forwards read, one by one.
    """

    rows: int
    agents: int
    links: int
    gradients: int
    optimizer: int
    activations: float
    flops: dict[str, float]
    latent_reads: float

    @property
    def total(self) -> float:
        return self.agents + self.links + self.gradients + self.optimizer + self.activations

    @property
    def static(self) -> float:
        return self.total - self.activations

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """At these rates; the slower of arithmetic and of reading weights for latent steps."""
        return max(
            sum(self.flops.values()) / flops_per_second, self.latent_reads / bytes_per_second
        )

    def largest_rows(self, limit: float) -> int:
        """Rows that fit into so many bytes, activations taken as proportional to rows."""
        return max(0, int((limit - self.static) / (self.activations / self.rows)))


def make_plan(config: Config, tokens: Mapping[str, Tokens], rows: int) -> Plan:
    """The plan of an outer step with this micro-batch.

    Args:
        config: of the run; agents are configs with or without weights.
        tokens: agent -> lengths of its longest row.
        rows: of a micro-batch on one device.
    """
    stage = config.training.outer
    topology = build_topology(config.topology, config.agents)
    shapes = {name: read_shape(name, config.agents[name]) for name in topology.agents}
    units = {name: layer_unit(shape) for name, shape in shapes.items()}

    def at(depths: list[int]) -> Cost:
        agents = {
            name: shape_agent(name, shapes[name], config.agents[name], depth * units[name])
            for name, depth in zip(topology.agents, depths, strict=True)
        }
        return _count(config, stage, topology, agents, tokens, rows)

    scales = [shapes[n].num_hidden_layers / units[n] for n in topology.agents]
    cost = extrapolate(at, scales)
    whole = {n: shape_agent(n, shapes[n], config.agents[n]) for n in topology.agents}
    links = shape_links(config.links, topology, whole)
    trained = _objective(config, stage, topology, whole, tokens, links).groups().values()
    trainable = sum(_bytes(link.parameters()) for link in trained)
    weights = {name: _bytes(agent.model.parameters()) for name, agent in whole.items()}
    calls = topology.live_calls(config.rounds)[:-1]
    again = 2 if stage.checkpoint == "agent" else 1
    single = again * max(0, config.latent_length - 1)
    return Plan(
        rows,
        sum(weights.values()),
        _bytes(links.parameters()),
        trainable,
        ADAMW_STATES * trainable,
        max(0.0, cost.peak - trainable),  # the counter saw the gradients too
        cost.flops,
        float(single * sum(weights[name] for _, name in calls)),
    )


def _count(
    config: Config,
    stage: OuterConfig,
    topology: Topology,
    agents: Mapping[str, Agent],
    tokens: Mapping[str, Tokens],
    rows: int,
) -> Cost:
    links = shape_links(config.links, topology, agents)
    _objective(config, stage, topology, agents, tokens, links)  # freezes what is not trained
    team = shape_team(agents, topology, config.links.edge_input, tokens)
    answer = [[1] * tokens[topology.decoder].answer] * rows
    taught = set() if stage.latents == "rollout" else set(agents) - {topology.decoder}
    taught |= {topology.decoder} if stage.feedback == "gold_answer" else set()
    texts = {name: [[1] * config.latent_length] * rows for name in taught}

    def step() -> torch.Tensor:
        result = unroll(
            team,
            links,
            [{}] * rows,
            config.rounds,
            config.latent_length,
            backward=backward_of(stage),
            texts=texts,
        )
        batch, prefix = result.turn.open(range(rows), result.inbox, answer)
        return answer_loss(result.turn.agent, batch, prefix, answer)

    models = [agent.model for agent in agents.values()]
    known = [t for m in (*models, links) for t in (*m.parameters(), *m.buffers())]
    return count(models, known, step)


def _objective(
    config: Config,
    stage: OuterConfig,
    topology: Topology,
    agents: Mapping[str, Agent],
    tokens: Mapping[str, Tokens],
    links: Any,
) -> OuterObjective:
    return OuterObjective(
        shape_team(agents, topology, config.links.edge_input, tokens),
        links,
        Table(Path(), []),
        config.rounds,
        config.latent_length,
        train_inner=stage.train_inner,
        backward=backward_of(stage),
    )


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
        tokenizer = AutoTokenizer.from_pretrained(str(find_path(where.model) or where.model))
    except (OSError, ValueError):
        tokenizer = None
    if tokenizer is None or tokenizer.chat_template is None:
        raise AgentError(
            f"agents.{name}.model={where.model} has no tokenizer with a chat template; set "
            "plan.prefix_tokens, plan.suffix_tokens and plan.answer_tokens."
        )
    agent = Agent(name, None, tokenizer, where.model)
    folder = find_path(config.data.prompts) or Path(config.data.prompts)
    prompt = load_prompt(agent, folder, [e.source for e in topology.incoming(name)])
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


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


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
    lines = []
    for devices, of in rows.items():
        plan = plans[of]
        micro_batches = -(-stage.batch_size // (devices * of))
        lines.append(
            asdict(plan)
            | {
                "devices": devices,
                "micro_batches": micro_batches,
                "total": plan.total,
                "fits": plan.total <= config.plan.device_gib * GIB,
                "seconds": micro_batches * plan.seconds(*rates),
                "bytes_to_reduce": plan.gradients if devices > 1 else 0,
                "advice": advice(config, plan),
            }
        )
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


def advice(config: Config, plan: Plan) -> list[str]:
    """What to change where the plan does not fit; the cheapest first."""
    limit, stage = config.plan.device_gib * GIB, config.training.outer
    if plan.total <= limit:
        return []
    found = []
    if stage.checkpoint == "none":
        found.append("training.outer.checkpoint=agent: activations no longer grow with rounds")
    fitting = plan.largest_rows(limit)
    if fitting:
        found.append(f"training.outer.micro_batch_size={fitting}: fits, by proportion")
    elif config.latent_length > 1:
        found.append(f"latent_length below {config.latent_length}: fewer steps are kept")
    if any(agent.dtype != "bfloat16" for agent in config.agents.values()):
        found.append("agents.<name>.dtype=bfloat16: half the weights; links stay float32")
    if plan.static > limit:
        found.append("weights alone do not fit: smaller agents, or a larger device")
    return found
