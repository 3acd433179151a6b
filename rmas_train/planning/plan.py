"""Stage plan: does the outer stage fit, what will a step cost? Before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.config import Config, first_alike
from rmas_train.links.link_set import LinkSet
from rmas_train.links.readout import tables
from rmas_train.objectives.base import build_objective
from rmas_train.planning.cost import Cost, count, extrapolate
from rmas_train.planning.shapes import (
    Tokens,
    check_shape,
    layer_unit,
    read_shape,
    shape_agent,
    shape_links,
    shape_loaded,
    weight_bytes,
)
from rmas_train.planning.traffic import Sizes, sizes_of
from rmas_train.topology import Topology, build_topology

ADAMW_STATES = 2


@dataclass(frozen=True)
class Plan:
    """One device's share of an outer step; bytes, operations, seconds.

    Attributes:
        rows: of a micro-batch.
        agents, links, gradients, optimizer: what stays: weights (with the embeddings that
            vocabulary read-outs hold), and of trainable links the gradients and AdamW's two states.
        activations: the peak of everything else.
        kept: what the objective comes to hold from step to step, such as frozen prefixes; its
            limit, since the plan does not know how many rows there are.
        flops: of a micro-batch by kind, see ``planning.cost``.
        latent_reads: bytes of weights that its single-position forwards read, one by one.
        layer_forwards, layer_backwards: of a micro-batch, agent -> how often each of its decoder
            layers is gone through.
        layer_gathers: the same, how often FSDP2 would gather it.
    """

    rows: int
    agents: int
    links: int
    gradients: int
    optimizer: int
    activations: float
    kept: int
    flops: dict[str, float]
    latent_reads: float
    layer_forwards: dict[str, int]
    layer_backwards: dict[str, int]
    layer_gathers: dict[str, int]

    @property
    def total(self) -> float:
        fixed = self.agents + self.links + self.gradients + self.optimizer + self.kept
        return fixed + self.activations

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


def without_writing(config: Config) -> Config:
    """Shapes write no text, so what agents write for ``text_messages`` is not counted."""
    outer = replace(config.training.outer, text_messages=0.0)
    return replace(config, training=replace(config.training, outer=outer))


def make_plan(config: Config, tokens: Mapping[str, Tokens], rows: int) -> Plan:
    """The plan of an outer step with this micro-batch.

    Args:
        config: of the run; agents are configs with or without weights.
        tokens: agent -> lengths of its longest row.
        rows: of a micro-batch on one device.
    """
    config = without_writing(config)
    stage = config.training.outer
    topology = build_topology(config.topology, config.agents)
    shapes = {name: read_shape(name, config.agents[name]) for name in topology.agents}
    units = {name: layer_unit(shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        check_shape(name, shape, config.agents[name])

    def at(depths: list[int]) -> Cost:
        agents = {
            name: shape_agent(name, shapes[name], config.agents[name], depth * units[name])
            for name, depth in zip(topology.agents, depths, strict=True)
        }
        return _count(config, topology, agents, tokens, rows)

    scales = [shapes[n].num_hidden_layers / units[n] for n in topology.agents]
    cost = extrapolate(at, scales)
    whole = {n: shape_agent(n, shapes[n], config.agents[n]) for n in topology.agents}
    links = shape_links(config.links, topology, whole)
    objective = build_objective(config, shape_loaded(config, topology, whole, tokens, rows), links)
    trained = objective.groups().values()
    trainable = sum(_bytes(link.parameters()) for link in trained)
    weights = {n: weight_bytes(a, shapes[n], config.agents[n]) for n, a in whole.items()}
    calls = topology.live_calls(config.rounds)[:-1]
    again = 2 if stage.recompute == "agent" else 1
    single = again * max(0, config.latent_length - 1)
    return Plan(
        rows,
        sum(weights[n] for n in set(first_alike(config.agents, topology.agents).values())),
        _bytes(links.parameters()) + own_table_bytes(links, whole),
        trainable,
        ADAMW_STATES * trainable,
        # The counter saw the gradients too, and what the step has put by.
        max(0.0, cost.peak - trainable - cost.kept[0]),
        objective.kept_limit(),
        cost.flops,
        float(single * sum(weights[name] for _, name in calls)),
        _by_agent(topology, cost.forwards),
        _by_agent(topology, cost.backwards),
        _by_agent(topology, cost.gathers),
    )


def own_table_bytes(links: LinkSet, agents: Mapping[str, Agent]) -> int:
    """Of embeddings that read-outs hold beside the agents' weights."""
    weights = {p.untyped_storage()._cdata for a in agents.values() for p in a.model.parameters()}
    return _bytes(t for t in tables(links) if t.untyped_storage()._cdata not in weights)


def _by_agent(topology: Topology, counts: Sequence[float]) -> dict[str, int]:
    return {name: round(n) for name, n in zip(topology.agents, counts, strict=True)}


def agent_sizes(config: Config) -> dict[str, Sizes]:
    """Sizes of every agent's weights, by configs alone."""
    found = {}
    for name in config.topology.order:
        agent = config.agents[name]
        found[name] = sizes_of(shape_agent(name, read_shape(name, agent), agent).model)
    return found


def _count(
    config: Config,
    topology: Topology,
    agents: Mapping[str, Agent],
    tokens: Mapping[str, Tokens],
    rows: int,
) -> Cost:
    """Cost of the very forward and backward that training runs."""
    links = shape_links(config.links, topology, agents)
    objective = build_objective(config, shape_loaded(config, topology, agents, tokens, rows), links)
    models = [agent.model for agent in agents.values()]
    known = [t for m in (*models, links) for t in (*m.parameters(), *m.buffers())]
    known += tables(links)
    cost = count(models, known, lambda: objective(range(rows), config.rounds).sum())
    cost.kept = [float(objective.kept_bytes())]
    return cost


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
