"""Mixture of agents (Wang and others 2024, arXiv 2406.04692).

Every agent answers, in as many layers as there are rounds; from the second layer on, each reads the
answers of the layer before. At the end the decoder reads the last ones and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.agents.prompt_files import MIXTURE, PROPOSALS, SINGLE
from rmas_train.agents.prompts import make_prompt
from rmas_train.recursion import Rows
from rmas_train.systems.alone import Alone, agents_alone, alone
from rmas_train.systems.base import Answer, Built, Ingredients, NotApplicable, SystemEntry, added
from rmas_train.systems.looks import BUILTIN


@dataclass(frozen=True)
class MixtureOfAgents:
    """Layers of agents that answer alone, and one that reads them all.

    Attributes:
        proposers: first layer, by the prompt file ``single.yaml``.
        refiners: the same agents, by ``moa.yaml``, with the column ``proposals``.
        aggregator: the decoder, by the same file; writes the answer.
    """

    proposers: Sequence[Alone]
    refiners: Sequence[Alone]
    aggregator: Alone
    latent_length: int = 0
    uses_rounds: bool = True

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row; its tokens are those of all agents in all layers."""
        tokens = read = [0] * len(rows)
        asked = rows
        for layer in range(rounds):
            agents = self.refiners if layer else self.proposers
            answers = [agent.answer(asked) for agent in agents]
            asked = [
                {**row, PROPOSALS: numbered(own)}
                for row, own in zip(rows, zip(*answers, strict=True), strict=True)
            ]
            for given in answers:
                tokens = added(tokens, [answer.tokens for answer in given])
                read = added(read, [answer.prompt_tokens for answer in given])
        final = self.aggregator.answer(asked)
        return [
            replace(a, tokens=a.tokens + before, prompt_tokens=a.prompt_tokens + own)
            for a, before, own in zip(final, tokens, read, strict=True)
        ]


def numbered(answers: Sequence[Answer]) -> str:
    """Texts as a list: ``1. ...`` on a line of its own, and so on."""
    return "\n".join(f"{i}. {answer.text.strip()}" for i, answer in enumerate(answers, 1))


def _build(ingredients: Ingredients) -> Built:
    texts = ingredients.prompts
    if missing := [name for name in (SINGLE, MIXTURE) if name not in texts]:
        return NotApplicable(f"there is no {missing[0]}.yaml among the prompts")
    names, decoder = agents_alone(ingredients.team), ingredients.team.topology.decoder
    first = [_agent(ingredients, name, SINGLE, texts) for name in names]
    later = [_agent(ingredients, name, MIXTURE, texts) for name in names]
    return MixtureOfAgents(first, later, _agent(ingredients, decoder, MIXTURE, texts, tools=True))


def _agent(
    ingredients: Ingredients,
    name: str,
    file: str,
    texts: Mapping[str, Mapping[str, Any]],
    tools: bool = False,
) -> Alone:
    prompt = make_prompt(ingredients.team.agents[name], texts[file], f"{file}.yaml", [])
    return alone(ingredients, prompt, tools)


MIXTURE_OF_AGENTS = SystemEntry("moa", None, _build, BUILTIN["moa"])
