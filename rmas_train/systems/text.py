"""Text recursion: the same agents, prompts, rounds and batching, passing text, not vectors.

``text_capped`` cuts each message to as many tokens as a latent message has vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from rmas_train.channels import TextChannel, Translations
from rmas_train.engine.decoding import Decoding
from rmas_train.recursion import Recursion, Rows, Team
from rmas_train.systems.base import (
    Answer,
    Ingredients,
    NotApplicable,
    SystemEntry,
    added,
    answers_of,
    chooser_for,
    open_sessions,
)
from rmas_train.systems.looks import BUILTIN
from rmas_train.tools.calls import Toolbox


@dataclass(frozen=True)
class TextSystem:
    """Each agent writes text into the slots of the agents that it sends to; the decoder answers.

    Attributes:
        max_new_tokens: longest message and answer.
        batch_size: rows per forward.
        translations: "source-target" -> word for word dictionary for what crosses that edge.
        decoding: how all agents write.
        tools: of the decoder's final text alone.
        most: tokens of a message, as its target counts them; None: as many as were written.
    """

    team: Team
    max_new_tokens: int
    batch_size: int = 250
    translations: Translations = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    tools: Toolbox | None = None
    latent_length: int = 0
    uses_rounds: bool = True
    most: int | None = None

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row; its tokens are those of all agents in all rounds."""
        answers = []
        for begin in range(0, len(rows), self.batch_size):
            answers += self._answer(rows[begin : begin + self.batch_size], rounds)
        return answers

    def _answer(self, rows: Rows, rounds: int) -> list[Answer]:
        chooser = chooser_for(self.decoding, rows)
        channel = TextChannel(self.max_new_tokens, chooser, self.translations, self.most)
        before = read = [0] * len(rows)
        for call in Recursion(self.team, channel).unroll(rows, rounds):
            read = added(read, call.prompts.lengths)
            if call.edges:
                before = added(before, call.sent.tokens)
        sessions = open_sessions(self.tools, rows)
        texts = call.write(self.max_new_tokens, chooser, sessions)
        texts = [text.after(tokens) for text, tokens in zip(texts, before, strict=True)]
        return answers_of(texts, 0, sessions, read)


def _build(ingredients: Ingredients, most: int | None = None) -> TextSystem:
    options = ingredients.config.evaluation
    return TextSystem(
        ingredients.team,
        options.max_new_tokens,
        options.batch_size,
        ingredients.config.data.translations,
        ingredients.decoding,
        ingredients.tools,
        most=most,
    )


def _capped(ingredients: Ingredients) -> TextSystem | NotApplicable:
    """As many tokens per message as the latent system has vectors."""
    length = ingredients.config.latent_length
    return _build(ingredients, length) if length else NotApplicable("latent_length is 0")


TEXT = SystemEntry("text", None, _build, BUILTIN["text"])
TEXT_CAPPED = SystemEntry("text_capped", None, _capped, BUILTIN["text_capped"])
