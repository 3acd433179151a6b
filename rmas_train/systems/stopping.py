"""The trained system with a stopping rule: the decoder answers after each round until it may stop.

``stop_agreement``: when an answer is that of the round before. ``stop_entropy``: when the mean
entropy of the answer's tokens is at most ``evaluation.stop_entropy``. At depth R it stops after R
rounds at the latest. Tokens and latent steps of a question are those up to its stop; its texts of
the rounds before count too. Rows of one batch go on together until the last of them stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from rmas_train.agents.prompts import tokenise_whole
from rmas_train.engine.answer import Text, mean_entropies
from rmas_train.recursion import Call, Rows
from rmas_train.systems.base import (
    Answer,
    Ingredients,
    NotApplicable,
    SystemEntry,
    added,
    chooser_for,
)
from rmas_train.systems.latent import System, latent_system
from rmas_train.systems.looks import BUILTIN

# Which rows may stop: the decoder's call, its texts, and those of the round before (or None).
Rule = Callable[[Call, Sequence[Text], Sequence[Text] | None], list[bool]]


@dataclass(frozen=True)
class StoppingSystem:
    """``system`` with a rule."""

    system: System
    batch_size: int
    rule: Rule
    uses_rounds: bool = True

    @property
    def latent_length(self) -> int:
        return self.system.latent_length

    @torch.no_grad()
    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        answers = []
        for begin in range(0, len(rows), self.batch_size):
            answers += self._answer(rows[begin : begin + self.batch_size], rounds)
        return answers

    def _answer(self, rows: Rows, rounds: int) -> list[Answer]:
        system, chooser = self.system, chooser_for(self.system.decoding, rows)
        found: dict[int, Answer] = {}
        tokens, steps, read = [0] * len(rows), 0, [0] * len(rows)
        before: list[Text] | None = None
        for call in system.unroll(rows, rounds, answer_rounds=range(1, rounds + 1)):
            read = added(read, call.prompts.lengths)
            if call.agent == system.team.topology.decoder:
                texts = call.write(system.max_new_tokens, chooser)
                tokens = added(tokens, [text.tokens for text in texts])
                stops = self.rule(call, texts, before)
                for i, (text, stop) in enumerate(zip(texts, stops, strict=True)):
                    if i not in found and (stop or call.round == rounds):
                        found[i] = Answer(text.text, tokens[i], steps, (), read[i])
                if len(found) == len(rows):
                    break
                before = texts
            steps += system.latent_length if call.edges else 0
        return [found[i] for i in range(len(rows))]


def agreement(_: Call, texts: Sequence[Text], before: Sequence[Text] | None) -> list[bool]:
    """The text is that of the round before."""
    if before is None:
        return [False] * len(texts)
    return [a.text == b.text for a, b in zip(texts, before, strict=True)]


def entropy(
    call: Call, texts: Sequence[Text], _: Sequence[Text] | None, most: float = 0.0
) -> list[bool]:
    """The mean entropy of the answer's tokens is at most this, in nats."""
    agent = call.prompts.agent
    ids = tokenise_whole(agent, [text.text for text in texts])
    return [value <= most for value in mean_entropies(agent, call.answer_states(ids))]


def _build(ingredients: Ingredients, rule: Rule) -> StoppingSystem | NotApplicable:
    built = latent_system(ingredients)
    if isinstance(built, NotApplicable):
        return built
    if ingredients.tools is not None:
        return NotApplicable("the decoder has tools, whose calls belong to the last round")
    return StoppingSystem(built.system, ingredients.config.evaluation.batch_size, rule)


def _by_entropy(ingredients: Ingredients) -> StoppingSystem | NotApplicable:
    most = ingredients.config.evaluation.stop_entropy
    return _build(ingredients, partial(entropy, most=most))


STOP_AGREEMENT = SystemEntry(
    "latent", "stop_agreement", partial(_build, rule=agreement), BUILTIN["latent stop_agreement"]
)
STOP_ENTROPY = SystemEntry("latent", "stop_entropy", _by_entropy, BUILTIN["latent stop_entropy"])
