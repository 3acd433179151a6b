"""From a links folder to a system that answers; its card names agents, prompts and topology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import make_prompt
from rmas_train.config import AgentConfig, first_alike
from rmas_train.engine.loading import load_agent
from rmas_train.errors import ConfigError, DataError, LinksError, did_you_mean
from rmas_train.links.card import CARD, LinksCard, read_card
from rmas_train.links.folder import check_agents, check_rendered, load_tensors
from rmas_train.links.link_set import draw_links
from rmas_train.links.readout import bind_readouts
from rmas_train.links.restore import card_topology
from rmas_train.recursion import Team
from rmas_train.systems.latent import System

# What a card says of how an agent was loaded.
LOADED_AS = (
    *("revision", "dtype", "adapter", "adapter_revision", "quantization", "template", "attention"),
)


def restore_system(path: Path, agents: Mapping[str, str], device: str | torch.device) -> System:
    """The system of a links folder.

    Args:
        path: of the links folder.
        agents: name -> folder or hub id, where the agents are elsewhere than in training.
        device: where agents and links go.

    Raises:
        LinksError: damaged folder, inner links only, or other agents than trained with.
        AgentError: an agent cannot be loaded.
        ConfigError: ``agents`` names another one.
    """
    card = read_card(path)
    check_given(agents, card)
    if card.rounds is None or card.latent_length is None:
        raise LinksError(f"{path}: inner links only; train the outer links with stage=outer first.")
    try:
        return _restore(path, card, agents, device)
    except (ConfigError, DataError) as error:  # what the card says of topology, links and prompts
        raise LinksError(f"{path / CARD}: {error}") from error


def check_given(agents: Any, card: LinksCard) -> None:
    """``agents`` says where agents are that the card names.

    Raises:
        ConfigError: it is no such mapping; names what is wrong.
    """
    if not isinstance(agents, Mapping):
        raise ConfigError(f"agents={agents!r}: give a dict, agent -> folder or hub id.")
    for name, where in agents.items():
        if name not in card.agents:
            raise ConfigError(
                f"agents={{{name!r}: ...}}: the links have no agent '{name}'. "
                f"{did_you_mean(name, card.agents)}"
            )
        if not isinstance(where, str | PathLike):
            raise ConfigError(f"agents={{{name!r}: {where!r}}}: give a folder or a hub id.")


def _restore(
    path: Path, card: LinksCard, agents: Mapping[str, str], device: str | torch.device
) -> System:
    topology, options = card_topology(path, card)
    loaded = load_agents_of(card, agents, device)
    seen = {
        n: {"model": a.source, "width": a.width, "fingerprint": a.fingerprint()}
        for n, a in loaded.items()
    }
    check_agents(path, card, seen)
    widths = {n: a.width for n, a in loaded.items()}
    links = draw_links(options, topology, widths, dict.fromkeys(widths, 1.0), seed=0)
    load_tensors(path, links)
    links.to(device).requires_grad_(False)
    bind_readouts(links, loaded, topology, options)
    prompts = {
        n: make_prompt(a, card.prompts[n], f"prompt of {n}", topology.sources(n))
        for n, a in loaded.items()
    }
    rendered = {n: prompt.rendered() for n, prompt in prompts.items()}
    check_rendered(path, card, card.prompts, rendered)
    team = Team(loaded, prompts, topology, options.edge_input, options.message_update)
    rounds, length = card.rounds or 1, card.latent_length or 0
    return System(team, links, rounds, length, card.max_new_tokens)


def load_agents_of(
    card: LinksCard, agents: Mapping[str, str], device: str | torch.device
) -> dict[str, Agent]:
    """The agents that a card names; roles of one model share its weights."""
    where = {
        name: AgentConfig(
            model=fspath(agents.get(name, made["model"])),
            **{key: made[key] for key in LOADED_AS if key in made},
        )
        for name, made in card.agents.items()
    }
    loaded: dict[str, Agent] = {}
    for name, first in first_alike(where, where).items():
        own = loaded.get(first)
        loaded[name] = replace(own, name=name) if own else load_agent(name, where[name], device)
    return loaded
