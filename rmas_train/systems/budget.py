"""A single agent that may write as much as the latent system thinks, and votes over its answers
(self-consistency, Wang and others 2022, arXiv 2203.11171).

A latent step costs a forward of one position, as a token does. So each question gets one answer,
and as many more as fit into the latent steps of the whole system.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmas_train.recursion import Rows, Team
from rmas_train.systems.alone import Alone, for_each_agent, rollouts_of, single_agent
from rmas_train.systems.base import (
    SAMPLE,
    Answer,
    Built,
    Ingredients,
    NotApplicable,
    SystemEntry,
)
from rmas_train.systems.looks import Look

TEMPERATURE = 0.6  # of the paper; where the evaluation itself draws nothing
MOST = 64  # answers to a question


@dataclass(frozen=True)
class Budget:
    """An agent's most frequent answer.

    Attributes:
        agent: answers alone; its temperature is above 0.
        steps: rounds -> latent steps of the whole system, which it may write as tokens.
        read: (row, text) -> the answer in a text; None: none, and the text has no vote.
    """

    agent: Alone
    steps: Callable[[int], int]
    read: Callable[[Mapping[str, Any], str], str | None]
    latent_length: int = 0
    uses_rounds: bool = True

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row; its tokens are those of all answers that voted."""
        found = [[answer] for answer in self.agent.answer(self._sampled(rows, 0))]
        steps = self.steps(rounds)
        wanted = [min(MOST, 1 + steps // max(1, own[0].tokens)) for own in found]
        for number in range(1, max(wanted)):
            open_ = [i for i, count in enumerate(wanted) if number < count]
            more = self.agent.answer(self._sampled([rows[i] for i in open_], number))
            for i, answer in zip(open_, more, strict=True):
                found[i].append(answer)
        return [self._vote(row, own) for row, own in zip(rows, found, strict=True)]

    def _vote(self, row: Mapping[str, Any], answers: list[Answer]) -> Answer:
        best = answers[most_voted([self.read(row, answer.text) for answer in answers])]
        calls = tuple(call for answer in answers for call in answer.calls)
        read = sum(a.prompt_tokens for a in answers)
        return Answer(best.text, sum(a.tokens for a in answers), 0, calls, read, best.retried)

    def _sampled(self, rows: Rows, number: int) -> list[dict[str, Any]]:
        """Rows whose texts are other ones than those of any sample of the evaluation."""
        return [{**row, SAMPLE: f"{row.get(SAMPLE, 0)} vote {number}"} for row in rows]


def most_voted(answers: Sequence[str | None]) -> int:
    """Place of the first text with the most frequent answer; among equals, of the one that came
    first.

    Args:
        answers: found in the texts; None: none, which is no vote.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    return answers.index(votes.most_common(1)[0][0]) if votes else 0


def budget_agents(team: Team) -> list[SystemEntry]:
    """An entry for each agent."""
    return for_each_agent(team, "budget", _build, Look("budget-matched", "#6699CC", "h", 26))


def _build(ingredients: Ingredients, name: str) -> Built:
    agent, length = single_agent(ingredients, name), ingredients.config.latent_length
    if isinstance(agent, NotApplicable):
        return agent
    if not length:
        return NotApplicable("latent_length is 0, so there is no budget to match")
    if agent.decoding.method != "plain":
        return NotApplicable("it draws tokens, and evaluation.decoding=static draws none")
    warm = agent.decoding.temperature or TEMPERATURE
    agent = replace(agent, decoding=replace(agent.decoding, temperature=warm))
    calls = rollouts_of(ingredients.team)
    return Budget(agent, lambda rounds: length * calls(rounds), ingredients.read)
