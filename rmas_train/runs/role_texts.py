"""Teacher-forced sequences of one role: its prompt with upstream *texts* in the slots, its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmas_train.agents.prompts import tokenise, tokenise_whole
from rmas_train.config import DataConfig
from rmas_train.engine.sequences import fill_text
from rmas_train.recursion import Team

Sequence_ = tuple[list[int], list[int]]


def role_sequences(
    team: Team, config: DataConfig, name: str, rows: Sequence[Mapping[str, Any]]
) -> list[Sequence_]:
    """(prompt ids with slots filled, ids of the agent's own text with its end) of each row.

    A message of the same round is the sender's role text; one of the round before is the sender's
    feedback text, and a row whose feedback texts are empty stands for the first round.
    """
    agent, prompt = team.agents[name], team.prompts[name]
    columns = incoming_columns(team, config, name)
    has_message = [any(row.get(c) for c in columns.values()) for row in rows]
    targets = tokenise_whole(agent, [str(row[config.role_texts[name]]) for row in rows])
    texts = {
        s: tokenise(agent, [str(r.get(c) or "") for r in rows], plain=True)
        for s, c in columns.items()
    }
    later = prompt.encode(list(rows), 2, first=False)
    first = prompt.encode(list(rows), 1, first=True)
    sequences = []
    for i, target in enumerate(targets):
        if has_message[i]:
            ids = fill_text(later[i], {s: t[i] for s, t in texts.items()})
        else:
            ids = fill_text(first[i], {})
        sequences.append((ids, target))
    return sequences


def incoming_columns(team: Team, config: DataConfig, name: str) -> dict[str, str]:
    """Source -> column with the text that it sends to ``name``; others are left out."""
    columns = {}
    for edge in team.topology.incoming(name):
        texts = config.feedback_texts if edge.next_round else config.role_texts
        if edge.source in texts:
            columns[edge.source] = texts[edge.source]
    return columns


def needed_columns(team: Team, config: DataConfig, name: str) -> set[str]:
    """Columns that the inner stage reads in every row of an agent's table."""
    own = {config.role_texts[name]} if name in config.role_texts else set()
    return own | set(incoming_columns(team, config, name).values())
