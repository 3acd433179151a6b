"""One agent by itself: the decoder without messages, with thoughts of its own, or any agent that is
given everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rmas_train.agents.prompts import SINGLE, Prompt, make_prompt
from rmas_train.engine.answer import write
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_prompts
from rmas_train.engine.rollout import rollout
from rmas_train.recursion import Rows, Team
from rmas_train.systems.base import (
    Answer,
    AnsweringSystem,
    Ingredients,
    SystemEntry,
    answers_of,
    chooser_for,
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
    decoding: Decoding = field(default_factory=Decoding)
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
            chooser = chooser_for(self.decoding, chosen)
            texts = write(agent, embedded, self.max_new_tokens, chooser, sessions)
            answers += answers_of(texts, 0, sessions)
        return answers


def _alone(ingredients: Ingredients, prompt: Prompt) -> Alone:
    options = ingredients.config.evaluation
    return Alone(
        prompt, options.max_new_tokens, options.batch_size, ingredients.decoding, ingredients.tools
    )


def _decoder_alone(ingredients: Ingredients) -> AnsweringSystem:
    team = ingredients.team
    return _alone(ingredients, team.prompts[team.topology.decoder])


DECODER_ALONE = SystemEntry("decoder_alone", None, _decoder_alone, BUILTIN["decoder_alone"])


@dataclass(frozen=True)
class Thinking:
    """The decoder alone, with as many latent steps of its own as the whole system has in all.

    Attributes:
        inner: its inner link, from a hidden state to its next thought.
        calls: rounds -> rollouts of the system.
    """

    alone: Alone
    inner: Callable[[Tensor], Tensor]
    calls: Callable[[int], int]
    latent_length: int
    uses_rounds: bool = True

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        alone, agent, answers = self.alone, self.alone.prompt.agent, []
        steps = self.latent_length * self.calls(rounds)
        for begin in range(0, len(rows), alone.batch_size):
            chosen = list(rows[begin : begin + alone.batch_size])
            batch = embed_prompts(agent, alone.prompt.encode(chosen, 1, first=True), {})
            _, thoughts_BMD = rollout(agent, self.inner, batch, steps, fast=True)
            batch = batch.extend(thoughts_BMD.to(agent.dtype))
            sessions = open_sessions(alone.tools, len(chosen))
            how = alone.max_new_tokens, chooser_for(alone.decoding, chosen), sessions
            answers += answers_of(write(agent, (batch, None), *how), steps, sessions)
        return answers


def _thinking(ingredients: Ingredients) -> AnsweringSystem | None:
    team, length = ingredients.team, ingredients.config.latent_length
    links = ingredients.links.get("trained")
    decoder = team.topology.decoder
    if links is None or decoder not in links.inner or not length:
        return None
    alone = _alone(ingredients, team.prompts[decoder])

    def rollouts(rounds: int) -> int:
        return len(team.topology.live_calls(rounds)) - 1  # the last call writes

    return Thinking(alone, links.inner[decoder], rollouts, length)


THINKING = SystemEntry("thinking", None, _thinking, BUILTIN["thinking"])


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

    return SystemEntry(SINGLE, name, build, Look(f"single agent, {name}", "#F0E442", "*", 24))
