"""One agent by itself: the decoder without messages, or any agent that is given everything."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rmas_train.agents.prompts import SINGLE, Prompt, make_prompt
from rmas_train.engine.answer import write
from rmas_train.engine.inputs import embed_prompts
from rmas_train.recursion import Rows, Team
from rmas_train.systems.base import (
    Answer,
    AnsweringSystem,
    Ingredients,
    SystemEntry,
    answers_of,
    open_sessions,
)
from rmas_train.systems.looks import BUILTIN, Look
from rmas_train.tools.calls import Toolbox


@dataclass(frozen=True)
class Alone:
    """The agent of a prompt; its answers do not depend on the depth."""

    prompt: Prompt
    max_new_tokens: int
    batch_size: int = 250
    decoding: str = "plain"
    tools: Toolbox | None = None
    latent_length: int = 0
    uses_rounds: bool = False

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int = 1) -> list[Answer]:  # noqa: ARG002
        agent, answers = self.prompt.agent, []
        for begin in range(0, len(rows), self.batch_size):
            chosen = list(rows[begin : begin + self.batch_size])
            prompts = self.prompt.encode(chosen, 1, first=True)
            sessions = open_sessions(self.tools, len(chosen))
            embedded = embed_prompts(agent, prompts, {}), None
            texts = write(agent, embedded, self.max_new_tokens, self.decoding, sessions)
            answers += answers_of(texts, 0, sessions)
        return answers


def _alone(ingredients: Ingredients, prompt: Prompt) -> AnsweringSystem:
    options = ingredients.config.evaluation
    return Alone(
        prompt, options.max_new_tokens, options.batch_size, options.decoding, ingredients.tools
    )


def _decoder_alone(ingredients: Ingredients) -> AnsweringSystem:
    team = ingredients.team
    return _alone(ingredients, team.prompts[team.topology.decoder])


DECODER_ALONE = SystemEntry("decoder_alone", None, _decoder_alone, BUILTIN["decoder_alone"])


def single_agents(team: Team) -> list[SystemEntry]:
    """An entry for each agent, which answers the prompt file ``single.yaml`` without the others.

    Roles of one model are one agent, called as the first of them.
    """
    first = {id(agent.model): name for name, agent in reversed(team.agents.items())}
    return [_single(name) for name in team.agents if name in first.values()]


def _single(name: str) -> SystemEntry:
    def build(ingredients: Ingredients) -> AnsweringSystem | None:
        agent, texts = ingredients.team.agents[name], ingredients.single_prompt
        if texts is None:
            return None
        return _alone(ingredients, make_prompt(agent, texts, f"{SINGLE}.yaml", []))

    return SystemEntry(SINGLE, name, build, Look(f"single agent, {name}", "#F0E442", "*", 7))
