"""Hashes of what a run reads: its prompts as rendered, its tokenizers, its rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rmas_train.agents.agent import Agent
from rmas_train.recursion import Team


def hash_of(value: Any) -> str:
    """A short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def rendered_prompts(team: Team) -> dict[str, str]:
    """Agent -> hash of its prompt as its chat template rendered it.

    A template that prints a date, or that came with another version of a model, shows here although
    the prompt files are the same.
    """
    return {
        name: hash_of([[(p.kind, p.value) for p in parts] for parts in (prompt.user, prompt.first)])
        for name, prompt in team.prompts.items()
    }


def tokenizer_hash(agent: Agent) -> str:
    """Hash of how an agent's tokenizer cuts texts; what calls leave behind in it is not counted."""
    backend = getattr(agent.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hash_of(agent.tokenizer.get_vocab())
    whole = json.loads(backend.to_str())
    return hash_of({k: v for k, v in whole.items() if k not in ("padding", "truncation")})
