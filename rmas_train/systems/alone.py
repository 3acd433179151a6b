"""One agent by itself: the decoder without messages, or any agent that is given everything; with or
without latent steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rmas_train.agents.prompt_files import SINGLE
from rmas_train.agents.prompts import Prompt, make_prompt
from rmas_train.engine.answer import write
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import embed_prompts
from rmas_train.engine.rollout import rollout
from rmas_train.recursion import Rows, Team
from rmas_train.systems.base import (
    Answer,
    AnsweringSystem,
    Built,
    Ingredients,
    NotApplicable,
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
            sessions = open_sessions(self.tools, chosen)
            embedded = embed_prompts(agent, prompts, {}), None
            chooser = chooser_for(self.decoding, chosen)
            texts = write(agent, embedded, self.max_new_tokens, chooser, sessions)
            answers += answers_of(texts, 0, sessions, [len(p.ids) for p in prompts])
        return answers


def alone(ingredients: Ingredients, prompt: Prompt, tools: bool = True) -> Alone:
    """The agent of a prompt, as the evaluation's options say; ``tools``: it may call them."""
    options, may_call = ingredients.config.evaluation, ingredients.tools if tools else None
    return Alone(prompt, options.max_new_tokens, options.batch_size, ingredients.decoding, may_call)


def _decoder_alone(ingredients: Ingredients) -> AnsweringSystem:
    team = ingredients.team
    return alone(ingredients, team.prompts[team.topology.decoder])


DECODER_ALONE = SystemEntry("decoder_alone", None, _decoder_alone, BUILTIN["decoder_alone"])


@dataclass(frozen=True)
class Thinking:
    """An agent alone that makes latent steps before it writes.

    Attributes:
        inner: its inner link, from a hidden state to its next thought.
        calls: rounds -> rollouts, of ``latent_length`` steps each: those of a whole system, or one
            in each round.
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
            prompts = alone.prompt.encode(chosen, 1, first=True)
            batch = embed_prompts(agent, prompts, {})
            _, thoughts_BMD = rollout(agent, self.inner, batch, steps, fast=True)
            batch = batch.extend(thoughts_BMD.to(agent.dtype))
            sessions = open_sessions(alone.tools, chosen)
            how = alone.max_new_tokens, chooser_for(alone.decoding, chosen), sessions
            texts, read = write(agent, (batch, None), *how), [len(p.ids) for p in prompts]
            answers += answers_of(texts, steps, sessions, read)
        return answers


def _thinking(ingredients: Ingredients) -> Built:
    team, length = ingredients.team, ingredients.config.latent_length
    decoder = team.topology.decoder
    if why := _cannot_think(ingredients, decoder):
        return NotApplicable(why)
    links = ingredients.links["trained"]
    decoder_alone = alone(ingredients, team.prompts[decoder])
    return Thinking(decoder_alone, links.inner[decoder], rollouts_of(team), length)


def rollouts_of(team: Team) -> Callable[[int], int]:
    """Rounds -> rollouts of the whole system; its last call writes."""
    return lambda rounds: len(team.topology.live_calls(rounds)) - 1


THINKING = SystemEntry("thinking", None, _thinking, BUILTIN["thinking"])


def _cannot_think(ingredients: Ingredients, name: str) -> str | None:
    """Why an agent has no latent steps of its own; None: it has."""
    if "trained" not in ingredients.links or name not in ingredients.links["trained"].inner:
        return f"{name} has no inner link"
    return None if ingredients.config.latent_length else "latent_length is 0"


def agents_alone(team: Team) -> list[str]:
    """One name for each model: roles of one model are one agent, called as the first of them."""
    first = {id(agent.model): name for name, agent in reversed(team.agents.items())}
    return [name for name in team.agents if name in first.values()]


def for_each_agent(
    team: Team, system: str, build: Callable[[Ingredients, str], Built], look: Look
) -> list[SystemEntry]:
    """An entry for each agent: ``build`` gets its name, and the label ends with it."""

    def entry(name: str) -> SystemEntry:
        own = replace(look, label=f"{look.label}, {name}")
        return SystemEntry(system, name, lambda given: build(given, name), own)

    return [entry(name) for name in agents_alone(team)]


def single_agents(team: Team) -> list[SystemEntry]:
    """Each agent, which answers the prompt file ``single.yaml`` without the others."""
    look = Look("single agent", "#F0E442", "*", 24)
    return for_each_agent(team, SINGLE, single_agent, look)


def single_agent(ingredients: Ingredients, name: str) -> Alone | NotApplicable:
    """An agent that is given everything."""
    if SINGLE not in ingredients.prompts:
        return NotApplicable(f"there is no {SINGLE}.yaml among the prompts")
    agent = ingredients.team.agents[name]
    return alone(ingredients, make_prompt(agent, ingredients.prompts[SINGLE], f"{SINGLE}.yaml", []))


def looped_agents(team: Team) -> list[SystemEntry]:
    """Each agent as a looped language model, whose inner link feeds its last hidden state back,
    ``latent_length`` steps in each of the rounds, before it writes."""
    return for_each_agent(team, "looplm", _looped, Look("looped", "#999933", "P", 25))


def _looped(ingredients: Ingredients, name: str) -> Built:
    agent = single_agent(ingredients, name)
    if isinstance(agent, NotApplicable):
        return agent
    if why := _cannot_think(ingredients, name):
        return NotApplicable(why)
    inner, length = ingredients.links["trained"].inner[name], ingredients.config.latent_length
    return Thinking(agent, inner, lambda rounds: rounds, length)
