"""New links for a set-up: what the data and the agents say about them, and where they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.config import LinksConfig
from rmas_train.data.rows import Row
from rmas_train.data.sampling import stream_seed
from rmas_train.engine.inputs import embed_ids, fill_text, pad_left, read_whole
from rmas_train.errors import LinksError
from rmas_train.links.folder import check_agents
from rmas_train.links.link_set import LinkSet, draw_links, form_of
from rmas_train.links.readout import bind_readouts
from rmas_train.links.restore import card_topology, restore_links
from rmas_train.links.shared_space import space_edges
from rmas_train.links.start import MIN_PAIRS, Pairs, align_links, silence_branches
from rmas_train.links.vocabulary import shared_tokens
from rmas_train.recursion import Team
from rmas_train.runs.load import Loaded
from rmas_train.runs.tables import role_sequences
from rmas_train.topology import Edge

NORM_FACTOR = 2.0


def seen_ids(sequences: Sequence[list[int]]) -> set[int]:
    """Token ids that occur in the data."""
    return {i for ids in sequences for i in ids}


@torch.no_grad()
def target_norm(agent: Agent, seen: set[int]) -> float:
    """Median norm, over seen token ids, of what the embedding module returns."""
    ids = torch.tensor(sorted(seen), device=agent.device)
    return float(agent.embed(ids).float().norm(dim=-1).median())


@torch.no_grad()
def token_embeddings(agent: Agent, ids: Sequence[int]) -> Tensor:
    """(len(ids), d), in the agent's dtype, on the CPU."""
    return agent.embed(torch.tensor(list(ids), device=agent.device)).cpu()


@torch.no_grad()
def states_before(
    agent: Agent, sequences: Sequence[list[int]], batch: int = 64
) -> dict[int, Tensor]:
    """Token id -> mean hidden state (d,) of the positions that the token follows in the data."""
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    for begin in range(0, len(sequences), batch):
        part = sequences[begin : begin + batch]
        ids_BL, real_BL = pad_left(part, agent.pad_id)
        hidden_BLD = read_whole(agent, embed_ids(agent, part))[:, :-1].float().cpu()
        following_BL = torch.where(real_BL[:, :-1] & real_BL[:, 1:], ids_BL[:, 1:], -1)
        for token in following_BL.unique().tolist():
            if token >= 0:
                here = hidden_BLD[following_BL == token]
                sums[token] = sums.get(token, torch.zeros(())) + here.sum(0)
                counts[token] = counts.get(token, 0) + len(here)
    return {token: sums[token] / counts[token] for token in sums}


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


def drawn_links(loaded: Loaded) -> LinkSet:
    """Links as PyTorch draws them, without norms of the agents: where these come from a file."""
    widths = {n: about["width"] for n, about in loaded.agents.items()}
    seed = stream_seed(loaded.config.seed, "links")
    norms = dict.fromkeys(widths, 1.0)
    links = draw_links(loaded.config.links, loaded.team.topology, widths, norms, seed)
    return place_links(links, loaded.team, loaded.config.links)


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
        return place_links(links, team, config.links), {}
    if config.links.readout == "vocabulary":
        silence_branches(links)
        return place_links(links, team, config.links), {}
    texts = cache(lambda name: agent_texts(loaded, team.agents[name]))  # tokenised once, if at all
    pairs = {
        name: edge_pairs(team, edge, options, texts)
        for name, edge, options in fitted_edges(team, config.links)
    }
    report = align_links(links, pairs, config.links, stream_seed(config.seed, "start_noise"))
    return place_links(links, team, config.links), report


def fitted_edges(team: Team, options: LinksConfig) -> list[tuple[str, Edge, LinksConfig]]:
    """What an aligned start fits: the edges, or the ends in a shared space.

    What comes out of a shared space was an embedding there, whatever went into it.
    """
    if options.shared_space is None:
        return [(edge.key, edge, options) for edge in team.topology.edges]
    widths = {name: agent.width for name, agent in team.agents.items()}
    ends = space_edges(team.topology, options.shared_space, widths)
    inside = replace(options, edge_input="inner")
    return [
        (name, edge, options if name.startswith("enter.") else inside)
        for name, edge in ends.items()
    ]


def begun_links(loaded: Loaded, folder: Path) -> LinkSet:
    """New links whose outer ones are those of a links folder.

    Raises:
        LinksError: they are of other agents or edges, or of another form.
    """
    links, _ = starting_links(loaded, init="default")
    card, topology, theirs = restore_links(folder)
    check_agents(folder, card, loaded.agents)
    ours, seen = form_of(loaded.config.links), form_of(card_topology(folder, card)[1])
    if other := next((key for key in ours if ours[key] != seen[key]), None):
        raise LinksError(
            f"training.outer.from_links={folder}: links.{other}={seen[other]} there, "
            f"{ours[other]} here; set links.{other}={seen[other]}."
        )
    if {e.key for e in topology.edges} != {e.key for e in loaded.team.topology.edges}:
        raise LinksError(
            f"training.outer.from_links={folder}: its edges are "
            f"{', '.join(e.key for e in topology.edges)}; give links of this topology."
        )
    for key, link in theirs.outer.items():
        links.outer[key].load_state_dict(link.state_dict())
    return links


def place_links(links: LinkSet, team: Team, options: LinksConfig) -> LinkSet:
    """Each inner link to its agent's device, each outer one to its source's; read-outs bound."""
    for name, agent in team.agents.items():
        links.inner[name].to(agent.device)
    for edge in team.topology.edges:
        if edge.key in links.outer and edge.source in team.agents:
            links.outer[edge.key].to(team.agents[edge.source].device)
    bind_readouts(links, team.agents, team.topology, options)
    return links


def edge_pairs(
    team: Team, edge: Edge, options: LinksConfig, texts: Callable[[str], list[list[int]]]
) -> Pairs:
    """Source embeddings, or the states that predict a shared token, beside target embeddings.

    ``texts``: agent -> token sequences of the data as it sees them.
    """
    source, target = team.agents[edge.source], team.agents[edge.target]
    shared = shared_tokens(source.tokenizer, target.tokenizer)
    if options.start_pairs == "seen":
        shared = seen_of(shared, *(seen_ids(texts(name)) for name in (edge.source, edge.target)))
    if options.edge_input == "hidden":
        states = states_before(source, texts(edge.source))
        shared = [(a, b) for a, b in shared if a in states]
        found = [states[a] for a, _ in shared]
        left = torch.stack(found) if found else torch.zeros(0, source.width)
        return Pairs(left, token_embeddings(target, [b for _, b in shared]))
    left = token_embeddings(source, [a for a, _ in shared])
    right = token_embeddings(target, [b for _, b in shared])
    if options.start_pairs == "all":
        index = trained_rows(left) & trained_rows(right)
        left, right = left[index], right[index]
    return Pairs(left, right)


def seen_of(shared: list[tuple[int, int]], *seen: set[int]) -> list[tuple[int, int]]:
    """The pairs that both agents see in the data, or all if these are too few."""
    used = [(a, b) for a, b in shared if a in seen[0] and b in seen[1]]
    return used if len(used) >= MIN_PAIRS else shared


def trained_rows(embeds_ND: Tensor) -> Tensor:
    """(N,) bool: rows whose norm is within a factor of the median; others were hardly trained.

    Vocabularies hold rows that no text has reached (reserved ones, rare bytes): most are near zero.
    """
    norms_N = embeds_ND.float().norm(dim=-1)
    middle = norms_N.median() if len(norms_N) else 1.0
    return (norms_N > middle / NORM_FACTOR) & (norms_N < middle * NORM_FACTOR)
