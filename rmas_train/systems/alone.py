"""The decoder alone: no message at all, as in a first round."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rmas_train.engine.answer import write
from rmas_train.engine.inputs import embed_prompts
from rmas_train.recursion import Rows, Team
from rmas_train.systems.base import (
    Answer,
    Ingredients,
    SystemEntry,
    answers_of,
    open_sessions,
)
from rmas_train.systems.looks import BUILTIN
from rmas_train.tools.calls import Toolbox


@dataclass(frozen=True)
class DecoderAlone:
    """Its answers do not depend on the depth."""

    team: Team
    max_new_tokens: int
    batch_size: int = 250
    decoding: str = "plain"
    tools: Toolbox | None = None
    latent_length: int = 0
    uses_rounds: bool = False

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int = 1) -> list[Answer]:  # noqa: ARG002
        name = self.team.topology.decoder
        agent, answers = self.team.agents[name], []
        for begin in range(0, len(rows), self.batch_size):
            chosen = list(rows[begin : begin + self.batch_size])
            prompts = self.team.prompts[name].encode(chosen, 1, first=True)
            sessions = open_sessions(self.tools, len(chosen))
            embedded = embed_prompts(agent, prompts, {}), None
            texts = write(agent, embedded, self.max_new_tokens, self.decoding, sessions)
            answers += answers_of(texts, 0, sessions)
        return answers


def _build(ingredients: Ingredients) -> DecoderAlone:
    options = ingredients.config.evaluation
    return DecoderAlone(
        ingredients.team,
        options.max_new_tokens,
        options.batch_size,
        options.decoding,
        ingredients.tools,
    )


DECODER_ALONE = SystemEntry("decoder_alone", None, _build, BUILTIN["decoder_alone"])
