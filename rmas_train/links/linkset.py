"""All links of a system as one ``nn.Module``; the agents are not in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rmas_train.config import LinksConfig
from rmas_train.links.modules import Link, make_link
from rmas_train.topology import Topology


class LinkSet(nn.Module):
    """``inner[agent]`` and ``outer["source-target"]``; parameters have these names in files too."""

    def __init__(self, inner: Mapping[str, Link], outer: Mapping[str, Link]) -> None:
        super().__init__()
        self.inner = nn.ModuleDict(inner)
        self.outer = nn.ModuleDict(outer)

    def links(self) -> dict[str, Link]:
        """Every link by its full name, ``inner.planner`` or ``outer.planner-critic``."""
        named = [(f"inner.{k}", v) for k, v in self.inner.items()]
        named += [(f"outer.{k}", v) for k, v in self.outer.items()]
        return {k: v for k, v in named if isinstance(v, Link)}

    def train_only(self, names: set[str]) -> None:
        """Freeze every link that is not named."""
        for name, link in self.links().items():
            link.requires_grad_(name in names)

    def trainable(self) -> dict[str, Link]:
        return {
            name: link
            for name, link in self.links().items()
            if any(p.requires_grad for p in link.parameters())
        }


def draw_links(
    config: LinksConfig,
    topology: Topology,
    widths: Mapping[str, int],
    target_norms: Mapping[str, float],
    seed: int,
) -> LinkSet:
    """Freshly drawn links (PyTorch's initialisation), the same for the same seed.

    Args:
        config: variant and norm.
        topology: one inner link per agent, one outer link per edge.
        widths: agent -> width of its embeddings.
        target_norms: agent -> norm of its embeddings.
        seed: of the random draw; the global random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kwargs: dict[str, Any] = {"variant": config.variant, "norm": config.norm}
        inner = {
            a: make_link(widths[a], widths[a], outer=False, target_norm=target_norms[a], **kwargs)
            for a in topology.agents
        }
        outer = {
            e.key: make_link(
                widths[e.source],
                widths[e.target],
                outer=True,
                target_norm=target_norms[e.target],
                **kwargs,
            )
            for e in topology.edges
        }
    return LinkSet(inner, outer)
