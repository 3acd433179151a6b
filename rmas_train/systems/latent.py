"""The latent system: agents, links and topology together. Also what ``rmas_train.load`` gives.

system = rmas_train.load("outputs/relay/outer/links")
answers = system.answer(["start C 0 x 1 u 2 stop"], rounds=1)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rmas_train.channels import LatentChannel
from rmas_train.data.rows import check_text
from rmas_train.engine.decoding import Decoding
from rmas_train.engine.inputs import LatentMessage
from rmas_train.engine.thoughts import ThoughtStore
from rmas_train.errors import ConfigError, DataError
from rmas_train.links.link_set import LinkSet
from rmas_train.recursion import Call, Intervention, Recursion, Rows, Team
from rmas_train.systems.base import (
    Answer,
    Ingredients,
    NotApplicable,
    Question,
    SystemEntry,
    added,
    answers_of,
    chooser_for,
    open_sessions,
)
from rmas_train.systems.looks import BUILTIN
from rmas_train.tools.calls import Toolbox


@dataclass
class System:
    """A trained (or untrained) recursive multi-agent system.

    Attributes:
        rounds, latent_length: what ``answer`` uses unless told otherwise (as trained).
        max_new_tokens: longest answer.
        decoding: how the decoder writes.
        tools: what the decoder may call in its text; None: nothing.
        thoughts: see ``LatentChannel``; shared by systems of the same agents.
    """

    team: Team
    links: LinkSet
    rounds: int
    latent_length: int
    max_new_tokens: int = 64
    decoding: Decoding = field(default_factory=Decoding)
    tools: Toolbox | None = None
    thoughts: ThoughtStore | None = None

    @torch.no_grad()
    def answer(
        self,
        questions: Sequence[Question],
        rounds: int | None = None,
        latent_length: int | None = None,
        *,
        batch_size: int = 250,
        interventions: Sequence[Intervention] = (),
    ) -> list[Answer]:
        """Answer each question.

        Args:
            questions: texts, or rows with the columns that the prompts name.
            rounds: recursion depth, 1 or more.
            latent_length: latent steps per rollout, 0 or more.
            batch_size: rows per forward.
            interventions: change each message on its way, see ``Recursion.unroll``.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: give a whole number, 1 or more.")
        if isinstance(questions, Sequence) and not questions and not isinstance(questions, str):
            return []
        rows = self._rows(questions)
        rounds, latent_length = self._depth(rounds, latent_length)
        if interventions:  # rows may meet in them
            parts = [rows]
        else:  # chunk by chunk, each with its prefixes kept
            parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        recursion = self._recursion(latent_length, in_buffer=True)
        calls = self.team.topology.live_calls(rounds)  # the last one rolls nothing out
        answers = []
        for part in parts:
            read = [0] * len(part)
            for call in recursion.unroll(
                part, rounds, chunk=batch_size, interventions=interventions
            ):
                read = added(read, call.prompts.lengths)
            sessions = open_sessions(self.tools, part)
            chooser = chooser_for(self.decoding, part)
            texts = call.write(self.max_new_tokens, chooser, sessions)
            answers += answers_of(texts, latent_length * (len(calls) - 1), sessions, read)
        return answers

    @torch.no_grad()
    def messages(
        self,
        questions: Sequence[Question],
        rounds: int | None = None,
        latent_length: int | None = None,
        *,
        batch_size: int | None = None,
    ) -> dict[tuple[int, str], Tensor]:
        """Every edge's message: (round, "source-target") -> (questions, latent, d_target)."""
        found = {}
        for call in self.unroll(questions, rounds, latent_length, batch_size=batch_size):
            for edge in call.edges:
                message = call.messages[edge.key]
                assert isinstance(message, LatentMessage)
                found[call.round, edge.key] = message.vectors
        return found

    def unroll(
        self,
        questions: Sequence[Question],
        rounds: int | None = None,
        latent_length: int | None = None,
        *,
        batch_size: int | None = None,
        interventions: Sequence[Intervention] = (),
        answer_rounds: Iterable[int] | None = None,
    ) -> Iterator[Call]:
        """The calls of the agents one by one, see ``Recursion.unroll``."""
        rounds, latent_length = self._depth(rounds, latent_length)
        return self._recursion(latent_length).unroll(
            self._rows(questions),
            rounds,
            chunk=batch_size,
            interventions=interventions,
            answer_rounds=answer_rounds,
        )

    def _recursion(self, latent_length: int, in_buffer: bool = False) -> Recursion:
        team = self.team
        kept = {"in_buffer": in_buffer, "thoughts": self.thoughts}
        channel = LatentChannel.of(team, self.links, latent_length, **kept)
        return Recursion(team, channel)

    def _depth(self, rounds: int | None, latent_length: int | None) -> tuple[int, int]:
        rounds = self.rounds if rounds is None else rounds
        latent_length = self.latent_length if latent_length is None else latent_length
        numbers = type(rounds) is int and type(latent_length) is int
        if not numbers or rounds < 1 or latent_length < 0:
            raise ConfigError(
                f"rounds={rounds}, latent_length={latent_length}: give rounds of 1 or more and a "
                "latent_length of 0 or more."
            )
        return rounds, latent_length

    def _rows(self, questions: Iterable[Question]) -> list[Mapping[str, Any]]:
        if isinstance(questions, str | Mapping):
            what = "one text" if isinstance(questions, str) else "one row"
            raise DataError(f"questions is {what}, {questions!r}; give a list of questions.")
        if not isinstance(questions, Iterable):
            raise DataError(f"questions is {questions!r}; give a list of questions.")
        asked = list(questions)
        for i, question in enumerate(asked):
            if not isinstance(question, str | Mapping):
                raise DataError(f"question {i} is {question!r}; give a text, or named columns.")
        if not asked:
            raise DataError("there are no questions; give one or more.")
        rows = [{"question": q} if isinstance(q, str) else q for q in asked]
        needed = sorted(set().union(*(p.columns for p in self.team.prompts.values())))
        for i, row in enumerate(rows):
            missing = [column for column in needed if column not in row]
            if missing:
                raise DataError(f"question {i}: no column {missing[0]}, which a prompt names.")
            for column in needed:
                check_text(row, column, f"question {i}", "named in a prompt")
        return rows


@dataclass(frozen=True)
class LatentSystem:
    """A ``System`` as an evaluation sees it, with or without interventions on its messages."""

    system: System
    batch_size: int
    interventions: tuple[Intervention, ...] = ()
    uses_rounds: bool = True
    mixes_rows: bool = False

    @property
    def latent_length(self) -> int:
        return self.system.latent_length

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        return self.system.answer(
            rows, rounds, batch_size=self.batch_size, interventions=self.interventions
        )


WHY_NOT = {
    "trained": "there are no trained links",
    "untrained": "there are no untrained links",
    "start": "the links as the outer stage began are not beside the links (a folder start)",
    "format": "no links that have learnt the format alone are given (evaluation.format)",
}


def latent_system(
    ingredients: Ingredients,
    links: str = "trained",
    latent_length: int | None = None,
    interventions: Sequence[Intervention] = (),
    mixes_rows: bool = False,
) -> LatentSystem | NotApplicable:
    """The latent system with links of this name."""
    if links not in ingredients.links:
        return NotApplicable(WHY_NOT[links])
    config = ingredients.config
    system = System(
        ingredients.team,
        ingredients.links[links],
        config.rounds,
        config.latent_length if latent_length is None else latent_length,
        config.evaluation.max_new_tokens,
        ingredients.decoding,
        ingredients.tools,
        ingredients.thoughts,
    )
    changes = tuple(interventions)
    return LatentSystem(system, config.evaluation.batch_size, changes, mixes_rows=mixes_rows)


TRAINED = SystemEntry("latent", None, latent_system, BUILTIN["latent"])
