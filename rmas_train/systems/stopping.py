"""The trained system with a stopping rule: the decoder answers after each round until it may stop.

``stop_agreement``: when an answer is that of the round before. ``stop_entropy``: when the mean
entropy of the answer's tokens is at most ``evaluation.stop_entropy``. ``stop_trained``: when a
fitted rule says that the answer is right with a chance of ``evaluation.stop_chance`` or more. At
depth R it stops after R rounds at the latest. Tokens and latent steps of a question are those up to
its stop; its texts of the rounds before count too. Rows of one batch go on together until the last
of them stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rmas_train.engine.answer import Text, mean_entropies
from rmas_train.recursion import Call, Rows
from rmas_train.runs.stop_rule import StopRule, features, read_rule
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
    """``system`` with a rule, made anew for each batch: a rule may remember its rounds."""

    system: System
    batch_size: int
    new_rule: Callable[[], Rule]
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
        rule = self.new_rule()
        before: list[Text] | None = None
        for call in system.unroll(rows, rounds, answer_rounds=range(1, rounds + 1)):
            read = added(read, call.prompts.lengths)
            if call.agent == system.team.topology.decoder:
                texts = call.write(system.max_new_tokens, chooser)
                tokens = added(tokens, [text.tokens for text in texts])
                stops = rule(call, texts, before)
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
    return [value <= most for value in entropies(call, texts)]


def entropies(call: Call, texts: Sequence[Text]) -> list[float]:
    """Mean entropy of each text's tokens, in nats."""
    states = call.answer_states([list(text.ids) for text in texts])
    return mean_entropies(call.prompts.agent, states)


class Trained:
    """The rule's chance that the answer is right is at least ``least``."""

    def __init__(self, rule: StopRule, least: float) -> None:
        self._rule, self._least = rule, least
        self._before: Tensor | None = None

    def __call__(
        self, call: Call, texts: Sequence[Text], before: Sequence[Text] | None
    ) -> list[bool]:
        now_B1 = torch.tensor(entropies(call, texts))[:, None]
        before_B1 = now_B1 if self._before is None else self._before
        agrees_B2 = torch.tensor(agreement(call, texts, before))[:, None].expand(-1, 2)
        entropy_B2 = torch.cat([before_B1, now_B1], 1)
        x_BF = features(entropy_B2, agrees_B2, self._rule.depth, begin=call.round - 2)[:, -1]
        self._before = now_B1
        return (self._rule.chance(x_BF) >= self._least).tolist()


def _build(ingredients: Ingredients, make: Callable[[], Rule]) -> StoppingSystem | NotApplicable:
    built = latent_system(ingredients)
    if isinstance(built, NotApplicable):
        return built
    if ingredients.tools is not None:
        why = "the decoder has tools or evaluation.retry_tokens, which belong to the last round"
        return NotApplicable(why)
    return StoppingSystem(built.system, ingredients.config.evaluation.batch_size, make)


def _by_entropy(ingredients: Ingredients) -> StoppingSystem | NotApplicable:
    most = ingredients.config.evaluation.stop_entropy
    return _build(ingredients, lambda: partial(entropy, most=most))


def _trained(ingredients: Ingredients) -> StoppingSystem | NotApplicable:
    options = ingredients.config.evaluation
    rule = read_rule(options.stop_rule)
    return _build(ingredients, lambda: Trained(rule, options.stop_chance))


STOP_AGREEMENT = SystemEntry(
    "latent",
    "stop_agreement",
    partial(_build, make=lambda: agreement),
    BUILTIN["latent stop_agreement"],
)
STOP_ENTROPY = SystemEntry("latent", "stop_entropy", _by_entropy, BUILTIN["latent stop_entropy"])
STOP_TRAINED = SystemEntry("latent", "stop_trained", _trained, BUILTIN["latent stop_trained"])
