"""``rmas_train.load``: from a links folder to a system that answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import make_prompt
from rmas_train.config import AgentConfig, EdgeConfig, LinksConfig, TopologyConfig, first_alike
from rmas_train.engine.loading import load_agent
from rmas_train.errors import ConfigError, DataError, LinksError
from rmas_train.links.folder import (
    CARD,
    LinksCard,
    check_agents,
    find_links,
    load_tensors,
    read_card,
)
from rmas_train.links.linkset import draw_links
from rmas_train.recursion import Team
from rmas_train.systems.latent import System
from rmas_train.topology import build_topology


def load(
    folder: str | os.PathLike[str],
    *,
    agents: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
) -> System:
    """A system ready to answer, from a links folder or a run folder.

    Args:
        folder: what ``stage=outer`` wrote.
        agents: name -> folder or hub id, where the agents are elsewhere than in training; their
            weights have to be the same.
        device: where agents and links go.

    Raises:
        LinksError: missing or damaged folder, inner links only, or other agents than trained with.
        AgentError: an agent cannot be loaded.
    """
    path = find_links(Path(folder))
    card = read_card(path)
    if card.rounds is None or card.latent_length is None:
        raise LinksError(f"{path}: inner links only; train the outer links with stage=outer first.")
    try:
        return _load(path, card, agents or {}, device)
    except (ConfigError, DataError) as error:  # what the card says of topology, links and prompts
        raise LinksError(f"{path / CARD}: {error}") from error


def _load(
    path: Path, card: LinksCard, agents: Mapping[str, str], device: str | torch.device
) -> System:
    edges = [EdgeConfig(**edge) for edge in card.topology["edges"]]
    topology = build_topology(TopologyConfig(**card.topology | {"edges": edges}), card.agents)
    options = LinksConfig(**card.links)
    where = {
        name: AgentConfig(
            model=agents.get(name, made["model"]), revision=made["revision"], dtype=made["dtype"]
        )
        for name, made in card.agents.items()
    }
    loaded: dict[str, Agent] = {}
    for name, first in first_alike(where, where).items():
        own = loaded.get(first)
        loaded[name] = replace(own, name=name) if own else load_agent(name, where[name], device)
    seen = {
        n: {"model": a.source, "width": a.width, "fingerprint": a.fingerprint()}
        for n, a in loaded.items()
    }
    check_agents(path, card, seen)
    widths = {n: a.width for n, a in loaded.items()}
    links = draw_links(options, topology, widths, dict.fromkeys(widths, 1.0), seed=0)
    load_tensors(path, links)
    links.to(device).requires_grad_(False)
    prompts = {
        n: make_prompt(a, card.prompts[n], f"prompt of {n}", topology.sources(n))
        for n, a in loaded.items()
    }
    team = Team(loaded, prompts, topology, options.edge_input)
    rounds, length = card.rounds or 1, card.latent_length or 0
    return System(team, links, rounds, length, card.max_new_tokens)
