"""Lengths of the longest rows, from the data or as typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import make_prompt, tokenise_whole
from rmas_train.config import Config
from rmas_train.data.rows import read_table
from rmas_train.errors import AgentError, ConfigError
from rmas_train.loading.model_files import find_source
from rmas_train.loading.tokenizer import load_tokenizer
from rmas_train.planning.shapes import Tokens
from rmas_train.recipes.prepare import prepare
from rmas_train.runs.load import prompt_texts
from rmas_train.topology import Topology, build_topology


def find_tokens(config: Config) -> dict[str, Tokens]:
    """Lengths from ``plan.*_tokens``, or of the longest training rows in the agents' tokens.

    Raises:
        ConfigError: neither is there.
    """
    plan = config.plan
    given = (plan.prefix_tokens, plan.suffix_tokens, plan.answer_tokens)
    names = list(config.topology.order)
    if all(n is not None for n in given):
        return {name: Tokens(given[0] or 0, given[1] or 0, given[2] or 0) for name in names}
    if not config.data.folder:
        raise ConfigError(
            "stage=plan needs the lengths of your rows: set plan.prefix_tokens, plan.suffix_tokens "
            "and plan.answer_tokens, or data.folder with your rows."
        )
    prepare(config.data, config.seed)
    file = config.data.train or config.data.test
    rows = read_table(Path(config.data.folder) / file, config.data.columns).rows
    topology = build_topology(config.topology, config.agents)
    return {name: _measured(config, name, topology, rows) for name in names}


def _measured(config: Config, name: str, topology: Topology, rows: Sequence[Any]) -> Tokens:
    where = config.agents[name]
    source = find_source(name, where)
    try:
        tokenizer = load_tokenizer(source)
        agent = Agent(name, None, tokenizer, where.model, template=where.template)
        assert agent.chat.answer
    except AgentError as error:
        raise AgentError(
            f"{error} Without a tokenizer, set plan.prefix_tokens, plan.suffix_tokens and "
            "plan.answer_tokens."
        ) from error
    texts = prompt_texts(config, [name])[name]
    prompt = make_prompt(agent, texts, f"{config.data.prompts}/{name}.yaml", topology.sources(name))
    encoded = prompt.encode(list(rows), 1, first=False)
    answers = tokenise_whole(agent, [str(row["answer"]) for row in rows])
    cuts = [p.slots[0][1] if p.slots else len(p.ids) for p in encoded]
    suffix = max(len(p.ids) - c for p, c in zip(encoded, cuts, strict=True))
    return Tokens(max(cuts), suffix, max(map(len, answers)))
