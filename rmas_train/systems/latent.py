"""A system that answers: agents, links and topology together. The Python API.

system = rmas_train.load("outputs/relay/outer/links")
answers = system.answer(["start C 0 x 1 u 2 stop"], rounds=1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmas_train.engine.answer import Text, write
from rmas_train.errors import ConfigError, DataError
from rmas_train.links.linkset import LinkSet
from rmas_train.recursion import Deliver, Rows, Team, unroll
from rmas_train.tools.calls import Session, Toolbox, ToolCall

Question = str | Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the decoder wrote for one question, and what it cost.

    Attributes:
        text: decoded, without special tokens.
        tokens: text tokens generated, end-of-text token included.
        latent_steps: latent steps of all agents in all rounds.
        calls: of tools; neither they nor their results are in ``text``.
    """

    text: str
    tokens: int
    latent_steps: int
    calls: tuple[ToolCall, ...] = ()


@dataclass
class System:
    """A trained (or untrained) recursive multi-agent system.

    Attributes:
        rounds, latent_length: what ``answer`` uses unless told otherwise (as trained).
        max_new_tokens: longest answer.
        decoding: see ``engine.answer.write``.
        tools: what the decoder may call in its text; None: nothing.
    """

    team: Team
    links: LinkSet
    rounds: int
    latent_length: int
    max_new_tokens: int = 64
    decoding: str = "plain"
    tools: Toolbox | None = None

    @torch.no_grad()
    def answer(
        self,
        questions: Sequence[Question],
        rounds: int | None = None,
        latent_length: int | None = None,
        *,
        batch_size: int = 250,
        deliver: Deliver | None = None,
    ) -> list[Answer]:
        """Answer each question.

        Args:
            questions: texts, or rows with the columns that the prompts name.
            rounds: recursion depth, 1 or more.
            latent_length: latent steps per rollout, 0 or more.
            batch_size: rows per forward.
            deliver: changes each message (all rows, M, D) on its way; for controls.
        """
        if not questions:
            return []
        rows = self._rows(questions)
        rounds, latent_length = self._depth(rounds, latent_length)
        if deliver is None:  # rows do not meet: chunk by chunk, each with its prefixes kept
            parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        else:
            parts = [rows]
        return [
            a
            for part in parts
            for a in self._answer(part, rounds, latent_length, batch_size, deliver)
        ]

    def _answer(
        self,
        rows: Rows,
        rounds: int,
        latent_length: int,
        batch_size: int,
        deliver: Deliver | None,
    ) -> list[Answer]:
        result = unroll(
            self.team,
            self.links,
            rows,
            rounds,
            latent_length,
            chunk=batch_size,
            deliver=deliver,
            fast=True,
        )
        turn = result.turn if self.decoding == "plain" else result.turn.whole()
        answers: dict[int, Answer] = {}
        for part in turn.parts(batch_size):
            opened = turn.open(part, result.inbox)
            sessions = open_sessions(self.tools, len(part))
            texts = write(turn, opened, self.max_new_tokens, self.decoding, sessions)
            found = answers_of(texts, result.latent_steps, sessions)
            answers |= dict(zip(part, found, strict=True))
        return [answers[i] for i in range(len(rows))]

    @torch.no_grad()
    def messages(
        self,
        questions: Sequence[Question],
        rounds: int | None = None,
        latent_length: int | None = None,
    ) -> dict[tuple[int, str], Tensor]:
        """Every edge's message: (round, "source-target") -> (questions, latent, d_target)."""
        rounds, latent_length = self._depth(rounds, latent_length)
        rows = self._rows(questions)
        return unroll(self.team, self.links, rows, rounds, latent_length).messages

    def _depth(self, rounds: int | None, latent_length: int | None) -> tuple[int, int]:
        rounds = self.rounds if rounds is None else rounds
        latent_length = self.latent_length if latent_length is None else latent_length
        if rounds < 1 or latent_length < 0:
            raise ConfigError(
                f"rounds={rounds}, latent_length={latent_length}: give rounds of 1 or more and a "
                "latent_length of 0 or more."
            )
        return rounds, latent_length

    def _rows(self, questions: Sequence[Question]) -> list[Mapping[str, Any]]:
        if isinstance(questions, str):
            raise DataError(f"questions is one text, {questions!r}; give a list of questions.")
        rows = [{"question": q} if isinstance(q, str) else q for q in questions]
        needed = set().union(*(p.columns for p in self.team.prompts.values()))
        for i, row in enumerate(rows):
            missing = sorted(needed - set(row))
            if missing:
                raise DataError(f"question {i}: no column {missing[0]}, which a prompt names.")
        return rows


def open_sessions(tools: Toolbox | None, count: int) -> list[Session] | None:
    """One for each answer, or None without tools."""
    return None if tools is None else [tools.open() for _ in range(count)]


def answers_of(
    texts: Sequence[Text], latent_steps: int, sessions: Sequence[Session] | None
) -> list[Answer]:
    """Texts with the calls that were made in them."""
    calls = [tuple(s.calls) for s in sessions] if sessions else [()] * len(texts)
    return [Answer(t.text, t.tokens, latent_steps, c) for t, c in zip(texts, calls, strict=True)]
