"""Agents and edges as data: who sends to whom, in which order, who answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from rmas_train.config import TopologyConfig
from rmas_train.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Edge:
    """A directed connection. ``next_round``: what is sent in round r arrives in round r + 1."""

    source: str
    target: str
    next_round: bool = False

    @property
    def key(self) -> str:
        return f"{self.source}-{self.target}"


CallId = tuple[int, str]  # (round from 1, agent)


@dataclass(frozen=True)
class Topology:
    """A validated topology; fan-in (several slots) and fan-out (several edges) are allowed."""

    name: str
    order: tuple[str, ...]
    edges: tuple[Edge, ...]
    decoder: str

    @cached_property
    def agents(self) -> tuple[str, ...]:
        return self.order

    def incoming(self, agent: str) -> list[Edge]:
        return [e for e in self.edges if e.target == agent]

    def sources(self, agent: str) -> list[str]:
        """Who sends to it."""
        return [e.source for e in self.incoming(agent)]

    def outgoing(self, agent: str) -> list[Edge]:
        return [e for e in self.edges if e.source == agent]

    def live_calls(self, rounds: int, answer_rounds: Iterable[int] | None = None) -> list[CallId]:
        """The calls whose result reaches an answer, in the order in which they run.

        The last one is the decoder's in the last round, which answers instead of rolling out.

        Args:
            rounds: depth.
            answer_rounds: rounds in which the decoder answers; None: the last one.
        """
        asked = [] if answer_rounds is None else answer_rounds
        if not isinstance(asked, Iterable):
            raise ConfigError(f"answer_rounds={asked!r}: give a list of rounds.")
        asked = list(asked)
        if odd := [r for r in asked if not isinstance(r, int) or not 1 <= r <= rounds]:
            raise ConfigError(f"answer_rounds has {odd[0]!r}; give rounds from 1 to {rounds}.")
        live: set[CallId] = {(rounds, self.decoder), *((r, self.decoder) for r in asked)}
        calls = [(r, agent) for r in range(1, rounds + 1) for agent in self.order]
        calls = calls[: calls.index((rounds, self.decoder)) + 1]
        for r, agent in reversed(calls):
            if any((r + e.next_round, e.target) in live for e in self.outgoing(agent)):
                live.add((r, agent))
        return [call for call in calls if call in live]

    def sends(self, call: CallId, live: Iterable[CallId]) -> list[Edge]:
        """Edges over which a call's message reaches another live call."""
        r, agent = call
        return [e for e in self.outgoing(agent) if (r + e.next_round, e.target) in live]

    def live_edges(self, rounds: int, last: int | None = None) -> set[str]:
        """Keys of the edges that a gradient can reach at this number of rounds.

        Args:
            rounds: depth.
            last: count the messages sent in this many of the last rounds only.
        """
        calls = self.live_calls(rounds)
        recent = [c for c in calls[:-1] if last is None or c[0] > rounds - last]
        return {e.key for call in recent for e in self.sends(call, calls)}

    def rolling_agents(self, rounds: int, last: int | None = None) -> set[str]:
        """Agents that roll out in (the last of) these rounds, so that their inner link is used."""
        calls = self.live_calls(rounds)[:-1]
        return {agent for r, agent in calls if last is None or r > rounds - last}


def build_topology(config: TopologyConfig, agents: Iterable[str]) -> Topology:
    """Check a topology against the configured agents.

    Raises:
        ConfigError: unknown agent, an edge given twice, a cycle within a round, an order that
            contradicts the edges, or an agent from which no path leads to the decoder.
    """
    known = list(agents)
    where = f"topology '{config.name}'"
    edges = tuple(Edge(e.source, e.target, e.next_round) for e in config.edges)
    named = [*config.order, *(n for e in edges for n in (e.source, e.target)), config.decoder]
    for name in named:
        if name not in known:
            raise ConfigError(
                f"{where}: unknown agent '{name}'. {did_you_mean(name, known)} "
                f"Agents are defined under agents.<name>."
            )
    order = tuple(config.order)
    for name in named:
        if order.count(name) != 1:
            raise ConfigError(
                f"{where}: '{name}' stands {order.count(name)} times in order={list(order)}; "
                "list every agent once."
            )
    _check_edges(where, order, edges, config.decoder)
    return Topology(config.name, order, edges, config.decoder)


def _check_edges(where: str, order: tuple[str, ...], edges: tuple[Edge, ...], decoder: str) -> None:
    keys = [e.key for e in edges]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{where}: edge {key} is given {keys.count(key)} times; remove one.")
    graph: dict[str, set[str]] = {name: set() for name in order}
    for e in edges:
        if not e.next_round:
            graph[e.target].add(e.source)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ConfigError(
            f"{where}: cycle within a round: {' -> '.join(reversed(error.args[1]))}; "
            "set next_round: true on the edge that feeds back."
        ) from error
    for e in edges:
        if not e.next_round and order.index(e.source) > order.index(e.target):
            raise ConfigError(
                f"{where}: edge {e.key} goes against order={list(order)}; move {e.source} before "
                f"{e.target}, or set next_round: true on this edge."
            )
    reaching = {decoder}
    for _ in order:
        reaching |= {e.source for e in edges if e.target in reaching}
    for name in order:
        if name not in reaching:
            raise ConfigError(
                f"{where}: no path from '{name}' to the decoder '{decoder}'; add an edge or remove "
                f"{name} from order."
            )
