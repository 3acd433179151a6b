"""All links of a system: ``LinkSet``, and freshly drawn ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rmas_train.config import LinksConfig
from rmas_train.errors import ConfigError
from rmas_train.links.modules import Link, make_link
from rmas_train.links.shared_space import SpaceLink, draw_space_links
from rmas_train.topology import Topology

# Options that decide what a link computes: links of one system share them.
FORM = (
    *("variant", "norm", "edge_input", "shared_space", "message_update"),
    *("readout", "temperature", "top_k"),
)


def form_of(options: LinksConfig) -> dict[str, Any]:
    return {key: getattr(options, key) for key in FORM}


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

    def parts(self) -> dict[str, Link]:
        """What holds parameters: every link; in place of links through a shared space their ends,
        ``enter.planner`` and ``leave.critic``."""
        found: dict[str, Link] = {}
        for name, link in self.links().items():
            if isinstance(link, SpaceLink):
                source, target = name.removeprefix("outer.").split("-")
                found |= {f"enter.{source}": link.enter, f"leave.{target}": link.leave}
            else:
                found[name] = link
        return found

    def between(self, source: str, target: str) -> Link:
        """The outer link of an edge, or in a shared space that of any two of its agents."""
        key = f"{source}-{target}"
        if key in self.outer:
            link = self.outer[key]
        else:
            parts = self.parts()
            link = SpaceLink(parts[f"enter.{source}"], parts[f"leave.{target}"])
        assert isinstance(link, Link)
        return link

    def train_only(self, names: set[str]) -> None:
        """Freeze every link that is not named, and does not share its parameters with one."""
        self.requires_grad_(False)
        for name, link in self.links().items():
            if name in names:
                link.requires_grad_(True)

    def trainable(self) -> dict[str, Link]:
        """Parts with parameters that are trained; of links that share theirs, the first."""
        found: dict[str, Link] = {}
        seen: set[int] = set()
        for name, link in self.parts().items():
            own = {id(p) for p in link.parameters() if p.requires_grad}
            if own - seen:
                found[name] = link
            seen |= own
        return found

    def trained_parts_of(self, names: set[str]) -> set[str]:
        """Names, as in ``trainable``, of what is trained in the links of these names."""
        links = self.links()
        own = {id(p) for name in names if name in links for p in links[name].parameters()}
        found = self.trainable().items()
        return {name for name, part in found if any(id(p) in own for p in part.parameters())}

    def share_outer(self) -> None:
        """Give all outer links the parameters of the first; each keeps its target's norm.

        Raises:
            ConfigError: their shapes differ.
        """
        first, *others = [link for link in self.links().values() if link.outer]
        for link in others:
            if (link.d_source, link.d_target) != (first.d_source, first.d_target):
                raise ConfigError(
                    f"links.shared=true with links {first.d_source} to {first.d_target} and "
                    f"{link.d_source} to {link.d_target} wide: one link fits agents of one width "
                    "alone; set links.shared=false, or choose such agents."
                )
            for name, parameter in first.named_parameters():
                module, _, own = name.rpartition(".")
                setattr(link.get_submodule(module), own, parameter)


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
        inner_kwargs = kwargs | ({"has_readout": True} if config.readout != "hidden" else {})
        kwargs |= {"has_readout": True} if config.readout == "vocabulary" else {}
        inner = {
            a: make_link(
                widths[a], widths[a], outer=False, target_norm=target_norms[a], **inner_kwargs
            )
            for a in topology.agents
        }
        outer = (
            {
                e.key: make_link(
                    widths[e.source],
                    widths[e.target],
                    outer=True,
                    target_norm=target_norms[e.target],
                    **kwargs,
                )
                for e in topology.edges
            }
            if config.shared_space is None
            else draw_space_links(topology, config.shared_space, widths, target_norms, **kwargs)
        )
    links = LinkSet(inner, outer)
    if config.shared:
        links.share_outer()
    return links
