"""New links for a set-up: what the data and the agents say about them, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rmas_train.agents.agent import Agent
from rmas_train.data.rows import Row
from rmas_train.data.sampling import stream_seed
from rmas_train.engine.sequences import fill_text
from rmas_train.engine.vocabulary import seen_ids, states_before, target_norm, token_embeddings
from rmas_train.links.linkset import LinkSet, draw_links
from rmas_train.links.start import Pairs, align_links, shared_tokens
from rmas_train.recursion import Team
from rmas_train.runs.load import Loaded
from rmas_train.runs.role_texts import role_sequences

Gather = Callable[[Mapping[str, Any]], dict[str, Any]]
VOCABULARY_ROWS = 2000  # rows from which token ids and typical states are read


def vocabulary_rows(loaded: Loaded, name: str) -> list[Row]:
    return loaded.tables.inner[name].rows[:VOCABULARY_ROWS]


def agent_texts(loaded: Loaded, agent: Agent) -> list[list[int]]:
    """Token sequences of the data as this agent sees them: prompts, slot texts and its own text."""
    rows, config = vocabulary_rows(loaded, agent.name), loaded.config
    if agent.name in config.data.role_texts:
        return [
            ids + target
            for ids, target in role_sequences(loaded.team, config.data, agent.name, rows)
        ]
    encoded = loaded.team.prompts[agent.name].encode(list(rows), 1, first=True)
    answers = agent.tokenizer([r["answer"] for r in rows], add_special_tokens=False)["input_ids"]
    return [fill_text(e, {}) + list(a) for e, a in zip(encoded, answers, strict=True)]


def untrained_links(loaded: Loaded, gather: Gather = dict) -> LinkSet:
    """Links as PyTorch draws them, from the run's seed; norms are those of the agents.

    Args:
        loaded: of this rank.
        gather: every rank's items in one dictionary, where ranks have different agents.
    """
    team, config = loaded.team, loaded.config
    norms = {n: target_norm(a, seen_ids(agent_texts(loaded, a))) for n, a in team.agents.items()}
    widths = {n: about["width"] for n, about in loaded.agents.items()}
    seed = stream_seed(config.seed, "links")
    return draw_links(config.links, team.topology, widths, gather(norms), seed)


def starting_links(
    loaded: Loaded, init: str | None = None
) -> tuple[LinkSet, dict[str, dict[str, float]]]:
    """New links for a set-up: aligned or freshly drawn, as ``links.init`` or ``init`` says.

    Returns:
        the links, each on the device of its (source) agent, and, for an aligned start, the
        alignment report of each edge.
    """
    config, team = loaded.config, loaded.team
    links = untrained_links(loaded)
    if (init or config.links.init) == "default":
        return place_links(links, team), {}
    texts = {n: agent_texts(loaded, a) for n, a in team.agents.items()}
    seen = {n: seen_ids(t) for n, t in texts.items()}
    pairs = {}
    for edge in team.topology.edges:
        source, target = team.agents[edge.source], team.agents[edge.target]
        shared = shared_tokens(
            source.tokenizer, target.tokenizer, (seen[edge.source], seen[edge.target])
        )
        pairs[edge.key] = _pairs(
            source, target, shared, texts[edge.source], config.links.edge_input
        )
    report = align_links(links, pairs, config.links, stream_seed(config.seed, "start_noise"))
    return place_links(links, team), report


def place_links(links: LinkSet, team: Team) -> LinkSet:
    """Each inner link to its agent's device, each outer one to its source's."""
    for name, agent in team.agents.items():
        links.inner[name].to(agent.device)
    for edge in team.topology.edges:
        if edge.key in links.outer and edge.source in team.agents:
            links.outer[edge.key].to(team.agents[edge.source].device)
    return links


def _pairs(
    source: Agent,
    target: Agent,
    shared: list[tuple[int, int]],
    texts: list[list[int]],
    edge_input: str,
) -> Pairs:
    """Source embeddings, or the states that predict a shared token, beside target embeddings."""
    if edge_input == "inner":
        left = token_embeddings(source, [a for a, _ in shared])
    else:
        states = states_before(source, texts)
        shared = [(a, b) for a, b in shared if a in states]
        left = (
            torch.stack([states[a] for a, _ in shared]) if shared else torch.zeros(0, source.width)
        )
    return Pairs(left, token_embeddings(target, [b for _, b in shared]))
