"""From a config to agents, prompts, data and links; what every stage begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmas_train.agents.agent import Agent, assert_frozen
from rmas_train.agents.loading import load_agent
from rmas_train.agents.prompts import load_prompt
from rmas_train.agents.sequences import fill_text
from rmas_train.agents.vocabulary import seen_ids, states_before, target_norm, token_embeddings
from rmas_train.config import Config
from rmas_train.data.recipes import prepare
from rmas_train.data.rows import Row, Table, check_answers, read_table
from rmas_train.data.sampling import stream_seed
from rmas_train.errors import ConfigError, DataError
from rmas_train.links.linkset import LinkSet, new_links
from rmas_train.links.start import Pairs, align_links, shared_tokens
from rmas_train.recursion import Team
from rmas_train.resources import find_path
from rmas_train.stages.role_texts import needed_columns, role_sequences
from rmas_train.topology import build_topology

VOCABULARY_ROWS = 2000  # rows from which token ids and typical states are read


@dataclass
class Setup:
    """A config's agents and data, loaded and checked."""

    config: Config
    team: Team
    train: Table
    test: Table
    fingerprints: dict[str, str]

    def assert_unchanged(self) -> None:
        """The agents' weights are, by hash, what was loaded."""
        assert_frozen(self.team.agents)
        for name, agent in self.team.agents.items():
            assert agent.fingerprint() == self.fingerprints[name], f"agent {name} has changed"


def set_up(config: Config, device: torch.device, is_main: bool = True, wait: Any = None) -> Setup:
    """Load agents, prompts and data, and check that they fit.

    Args:
        config: of the run.
        device: where the agents go.
        is_main: this rank runs the data recipe; the others ``wait()`` for it.
        wait: barrier over ranks.
    """
    topology = build_topology(config.topology, config.agents)
    if is_main:
        prepare(config.data, config.seed)
    if wait is not None:
        wait()
    if not config.data.folder:
        raise ConfigError("data.folder is empty; give the folder with your train and test rows.")
    folder = Path(config.data.folder)
    train, test = read_table(folder / config.data.train), read_table(folder / config.data.test)
    check_answers(train, config.data)
    check_answers(test, config.data)
    agents = {n: load_agent(n, config.agents[n], device) for n in topology.agents}
    prompts = {
        n: load_prompt(agents[n], prompts_folder(config), [e.source for e in topology.incoming(n)])
        for n in topology.agents
    }
    for prompt in prompts.values():
        train.require(prompt.columns, f"named in {prompt.file}")
        test.require(prompt.columns, f"named in {prompt.file}")
    team = Team(agents, prompts, topology, config.links.edge_input)
    train.require(
        needed_columns(team, config.data),
        "for the inner stage; name other columns with data.role_texts.<agent>=<column> and "
        "data.feedback_texts.<agent>=<column>",
    )
    setup = Setup(config, team, train, test, {n: a.fingerprint() for n, a in agents.items()})
    check_lengths(setup)
    return setup


def prompts_folder(config: Config) -> Path:
    path = find_path(config.data.prompts) if config.data.prompts else None
    if path is None or not path.is_dir():
        raise ConfigError(
            f"data.prompts={config.data.prompts}: no such folder; give one with <agent>.yaml files."
        )
    return path


def check_lengths(setup: Setup) -> None:
    """The decoder's prompt with its slots and the answer fit into ``data.max_length`` tokens.

    Raises:
        DataError: names the row.
    """
    config, team = setup.config, setup.team
    decoder = team.agents[team.topology.decoder]
    prompt = team.prompts[decoder.name]
    for table in (setup.train, setup.test):
        encoded = prompt.encode(list(table.rows), 1, first=False)
        answers = decoder.tokenizer([r["answer"] for r in table.rows], add_special_tokens=False)
        for i, (one, answer) in enumerate(zip(encoded, answers["input_ids"], strict=True)):
            slots = len(one.slots) * config.latent_length
            total = len(one.ids) + slots + len(answer) + 1
            if total > config.data.max_length:
                raise DataError(
                    f"{table.where(i)}: prompt ({len(one.ids)}), slots ({slots}) and answer "
                    f"({len(answer) + 1} tokens) make {total} tokens, data.max_length is "
                    f"{config.data.max_length}; shorten the row or raise data.max_length."
                )


def vocabulary_rows(setup: Setup) -> list[Row]:
    return setup.train.rows[:VOCABULARY_ROWS]


def agent_texts(setup: Setup, agent: Agent) -> list[list[int]]:
    """Token sequences of the data as this agent sees them: prompts, slot texts and its own text."""
    rows, config = vocabulary_rows(setup), setup.config
    if agent.name in config.data.role_texts:
        return [
            ids + target
            for ids, target in role_sequences(setup.team, config.data, agent.name, rows)
        ]
    encoded = setup.team.prompts[agent.name].encode(list(rows), 1, first=True)
    answers = agent.tokenizer([r["answer"] for r in rows], add_special_tokens=False)["input_ids"]
    return [fill_text(e, {}) + list(a) for e, a in zip(encoded, answers, strict=True)]


def make_links(
    setup: Setup, init: str | None = None
) -> tuple[LinkSet, dict[str, dict[str, float]]]:
    """New links for a set-up: aligned or freshly drawn, as ``links.init`` or ``init`` says.

    Returns:
        the links and, for an aligned start, the alignment report of each edge.
    """
    config, team = setup.config, setup.team
    texts = {n: agent_texts(setup, a) for n, a in team.agents.items()}
    seen = {n: seen_ids(t) for n, t in texts.items()}
    norms = {n: target_norm(a, seen[n]) for n, a in team.agents.items()}
    widths = {n: a.width for n, a in team.agents.items()}
    links = new_links(config.links, team.topology, widths, norms, stream_seed(config.seed, "links"))
    if (init or config.links.init) == "default":
        return links, {}
    pairs = {}
    for edge in team.topology.edges:
        source, target = team.agents[edge.source], team.agents[edge.target]
        shared = shared_tokens(
            source.tokenizer, target.tokenizer, (seen[edge.source], seen[edge.target])
        )
        pairs[edge.key] = _pairs(
            source, target, shared, texts[edge.source], config.links.edge_input
        )
    return links, align_links(links, pairs, config.links, stream_seed(config.seed, "start_noise"))


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
