"""Links through one shared space: each sender has a link into it, each receiver one out of it.

So N agents need at most 2N links, however many edges join them. Two ends that no edge joined can be
put together; whether they fit has to be measured (docs/library.md). The aligned start takes the
embedding space of one agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rmas_train.errors import ConfigError
from rmas_train.links.modules import Link, make_link
from rmas_train.topology import Edge, Topology


class SpaceLink(Link):
    """``leave(enter(x))``; other links of a system have the same ends.

    Args:
        enter: from the source into the shared space.
        leave: from there to the target.
    """

    def __init__(self, enter: Link, leave: Link) -> None:
        super().__init__(enter.d_source, leave.d_target, outer=True, norm="none")
        self.enter, self.leave, self.variant = enter, leave, enter.variant

    def body(self, x: Tensor) -> Tensor:
        return self.leave.body(self.enter(x))

    def finish(self, y: Tensor) -> Tensor:
        return self.leave.finish(y)

    def residual(self, x: Tensor) -> Tensor | None:
        return self.leave.residual(self.enter(x))

    def silence_branch(self) -> None:
        self.enter.silence_branch()
        self.leave.silence_branch()

    def ends(self) -> list[Link]:
        return [self.enter, self.leave]

    def fresh(self) -> Link:
        return SpaceLink(self.enter.fresh(), self.leave.fresh())


def draw_space_links(
    topology: Topology,
    width: int,
    widths: Mapping[str, int],
    target_norms: Mapping[str, float],
    **options: Any,
) -> dict[str, Link]:
    """Freshly drawn links of every edge, with the ends that they share.

    Args:
        width: of the shared space.
        topology, widths, target_norms: see ``draw_links``.
        options: as of ``make_link``.
    """
    agent = space_agent(topology, width, widths)
    norm = width**0.5 if agent is None else target_norms[agent]
    enter = {
        name: make_link(widths[name], width, outer=True, target_norm=norm, **options)
        for name in dict.fromkeys(edge.source for edge in topology.edges)
    }
    leave = {
        name: make_link(width, widths[name], outer=True, target_norm=target_norms[name], **options)
        for name in dict.fromkeys(edge.target for edge in topology.edges)
    }
    return {e.key: SpaceLink(enter[e.source], leave[e.target]) for e in topology.edges}


def space_agent(topology: Topology, width: int, widths: Mapping[str, int]) -> str | None:
    """The agent whose embedding space an aligned start takes: the first one of this width."""
    return next((name for name in topology.agents if widths[name] == width), None)


def space_edges(topology: Topology, width: int, widths: Mapping[str, int]) -> dict[str, Edge]:
    """End -> the edge whose aligned start it gets: to the agent of the space, or from it.

    Raises:
        ConfigError: no agent has this width.
    """
    agent = space_agent(topology, width, widths)
    if agent is None:
        listed = ", ".join(f"{name} {widths[name]}" for name in topology.agents)
        raise ConfigError(
            f"links.shared_space={width} with links.init=aligned: the space is that of an agent's "
            f"embeddings, and widths are {listed}; take one of these, or set links.init=default."
        )
    return {f"enter.{edge.source}": Edge(edge.source, agent) for edge in topology.edges} | {
        f"leave.{edge.target}": Edge(agent, edge.target) for edge in topology.edges
    }
