"""LatentMAS (Zou and others 2025, arXiv 2511.20639): agents of one model hand over their keys and
values, without training.

Each agent reads its prompt after all that the agents before it read and thought; its latent steps
are its last hidden states, mapped back to input embeddings. Keys and values depend on nothing that
comes later, so handing them over is one long sequence; it is read again for each agent, which costs
time and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import Prompt
from rmas_train.engine.answer import write
from rmas_train.engine.inputs import Batch, embed_prompts
from rmas_train.engine.kv_cache import is_recurrent
from rmas_train.engine.rollout import rollout
from rmas_train.recursion import Rows, Team
from rmas_train.systems.alone import Alone, alone
from rmas_train.systems.base import (
    Answer,
    Built,
    Ingredients,
    NotApplicable,
    SystemEntry,
    added,
    answers_of,
    chooser_for,
    open_sessions,
)
from rmas_train.systems.looks import BUILTIN

RIDGE = 1e-5  # as released


def realignment(agent: Agent) -> Callable[[Tensor], Tensor]:
    """From a last hidden state to an input embedding of the mean norm of all tokens'.

    The matrix is (W_out^T W_out + ridge I)^-1 W_out^T W_in, in float64.
    """
    w_in_VD = agent.model.get_input_embeddings().weight
    w_out_VD = agent.model.get_output_embeddings().weight
    gram_DD, cross_DD = _products(w_out_VD, w_in_VD)
    gram_DD += RIDGE * torch.eye(len(gram_DD), dtype=gram_DD.dtype, device=gram_DD.device)
    matrix_DD = torch.linalg.solve(gram_DD, cross_DD)
    ids = torch.arange(agent.rows, device=agent.device)
    norm = torch.cat([agent.embed(part).float().norm(dim=-1) for part in ids.split(8192)]).mean()

    def align(hidden: Tensor) -> Tensor:
        mapped = hidden @ matrix_DD.to(hidden)
        return mapped * (norm.to(hidden) / mapped.norm(dim=-1, keepdim=True))

    return align


def _products(w_out_VD: Tensor, w_in_VD: Tensor) -> tuple[Tensor, Tensor]:
    """W_out^T W_out and W_out^T W_in, a block of tokens at a time."""
    width = w_out_VD.shape[1]
    gram_DD = w_out_VD.new_zeros(width, width, dtype=torch.float64)
    cross_DD = gram_DD.clone()
    for out, into in zip(w_out_VD.split(8192), w_in_VD.split(8192), strict=True):
        gram_DD += out.double().T @ out.double()
        cross_DD += out.double().T @ into.double()
    return gram_DD, cross_DD


@dataclass(frozen=True)
class LatentMAS:
    """One model in all roles, once in their order; see above.

    Attributes:
        prompts: of the roles, the last of which answers.
        last: the last role, with its options.
        latent_length: latent steps of each role but the last.
        kept: holds the realignment from one part of the rows to the next; see ``Ingredients``.
    """

    prompts: Sequence[Prompt]
    last: Alone
    latent_length: int
    kept: dict[str, Any]
    uses_rounds: bool = False

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int = 1) -> list[Answer]:  # noqa: ARG002
        if "latentmas" not in self.kept:
            self.kept["latentmas"] = realignment(self.last.prompt.agent)
        align, answers = self.kept["latentmas"], []
        for begin in range(0, len(rows), self.last.batch_size):
            answers += self._answer(rows[begin : begin + self.last.batch_size], align)
        return answers

    def _answer(self, rows: Rows, align: Callable[[Tensor], Tensor]) -> list[Answer]:
        agent, batch, read = self.last.prompt.agent, None, [0] * len(rows)
        for prompt in self.prompts:
            encoded = prompt.encode(list(rows), 1, first=True)
            read = added(read, [len(one.ids) for one in encoded])
            batch = followed_by(batch, embed_prompts(agent, encoded, {}))
            if prompt is not self.prompts[-1]:
                _, latents_BMD = rollout(agent, align, batch, self.latent_length)
                batch = batch.extend(latents_BMD.to(agent.dtype))
        assert batch is not None
        sessions = open_sessions(self.last.tools, rows)
        how = self.last.max_new_tokens, chooser_for(self.last.decoding, rows), sessions
        texts = write(agent, (batch, None), *how)
        steps = self.latent_length * (len(self.prompts) - 1)
        return answers_of(texts, steps, sessions, read)


def followed_by(batch: Batch | None, more: Batch) -> Batch:
    """One batch after another; positions go on, and padding may stand between the two."""
    if batch is None:
        return more
    after_B1 = batch.positions[:, -1:] + 1
    return Batch(
        torch.cat([batch.embeds, more.embeds], dim=1),
        torch.cat([batch.real, more.real], dim=1),
        torch.cat([batch.positions, more.positions + after_B1], dim=1),
        batch.full and more.full,
    )


def _why_not(team: Team, latent_length: int) -> str | None:
    models = {id(agent.model) for agent in team.agents.values()}
    if len(models) > 1:
        return f"keys and values cannot go from model to model, and there are {len(models)} models"
    if not latent_length:
        return "latent_length is 0"
    if is_recurrent(next(iter(team.agents.values()))):
        return "recurrent layers cannot read padding between prompts"
    return None


def _build(ingredients: Ingredients) -> Built:
    team, length = ingredients.team, ingredients.config.latent_length
    if why := _why_not(team, length):
        return NotApplicable(why)
    names = [name for _, name in team.topology.live_calls(1)]
    last = alone(ingredients, team.prompts[names[-1]])
    return LatentMAS([team.prompts[name] for name in names], last, length, ingredients.kept)


LATENTMAS = SystemEntry("latentmas", None, _build, BUILTIN["latentmas"])
