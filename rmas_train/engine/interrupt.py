"""Rows that are interrupted while they write: stopped, given something to read, and resumed.

What interrupts them, a tool for example, is not known here; nor who lets an ended text go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise
from rmas_train.engine.inputs import Batch
from rmas_train.engine.kv_cache import Prefix, is_recurrent


@dataclass(frozen=True)
class Reply:
    """What follows from an interruption.

    Attributes:
        kept: of the text since the last one, what stays in the answer.
        added: what the agent reads next, as plain text.
    """

    kept: str
    added: str


@dataclass(frozen=True)
class More:
    """What follows a text that had ended.

    Attributes:
        added: what the agent reads next; it is part of the answer.
        tokens: that it may write after it.
    """

    added: str
    tokens: int


class Interrupt(Protocol):
    """Decides for one row when its text is interrupted, and by what."""

    @property
    def ends(self) -> str:
        """Only a token whose text holds this can make an interruption due."""
        ...

    def is_due(self, text: str) -> bool:
        """Whether the text since the last reply is to be interrupted; changes nothing."""
        ...

    def reply(self, text: str) -> Reply:
        """Called once for each text that is due."""
        ...

    def at_end(self, text: str) -> More | None:
        """Called when the answer has ended, each time; None: it stays as it is."""
        ...


class Draft:
    """A row's text while it may be interrupted.

    Attributes:
        read: token ids after the prompt that the agent reads before it goes on.
        kept: pieces of its text that stay.
        room: tokens that it may still write.
        tokens: that it has written.
        ids: all tokens after the prompt, written and read.
    """

    def __init__(self, agent: Agent, interrupt: Interrupt, most: int) -> None:
        self._agent, self._interrupt = agent, interrupt
        self._endings: dict[int, bool] = {}
        self.read: list[int] = []
        self.kept: list[str] = []
        self.room, self.tokens = most, 0
        self.ids: list[int] = []

    def is_due(self, ids: list[int]) -> bool:
        """Whether it is to be interrupted now; the text is decoded only where it may be."""
        last = ids[-1]
        if last not in self._endings:
            self._endings[last] = self._interrupt.ends in decode(self._agent, [last])
        return self._endings[last] and self._interrupt.is_due(decode(self._agent, ids))

    def add(self, ids: list[int]) -> bool:
        """What it has written since the last reply; whether it goes on, with another one."""
        self.tokens += len(ids)
        self.ids = self.read + ids
        self.room -= len(ids)
        text = decode(self._agent, ids)
        if self.room < 1 or ids[-1] in self._agent.end_ids or not self._interrupt.is_due(text):
            self.kept.append(text)
            return self._goes_on(ids)
        reply = self._interrupt.reply(text)
        self.kept.append(reply.kept)
        self.read += ids + tokenise(self._agent, [reply.added], plain=True)[0]
        return True

    def _goes_on(self, ids: list[int]) -> bool:
        """Whether it writes more after its end; the token that ended it is taken back."""
        more = self._interrupt.at_end("".join(self.kept))
        if more is None:
            return False
        written = ids[:-1] if ids[-1] in self._agent.end_ids else ids
        self.read += written + tokenise(self._agent, [more.added], plain=True)[0]
        self.kept.append(more.added)
        self.room = more.tokens
        return True


def up_to_end(agent: Agent, ids: list[int]) -> list[int]:
    """Generated ids up to the first token that ends a text, with it."""
    end = next((i for i, token in enumerate(ids) if token in agent.end_ids), len(ids))
    return ids[: end + 1]


def decode(agent: Agent, ids: list[int]) -> str:
    text: str = agent.tokenizer.decode(ids, skip_special_tokens=True)
    return text


def together(
    agent: Agent, prefix: Prefix | None, rows: list[int], drafts: Sequence[Draft]
) -> list[list[int]]:
    """Rows that go on in one batch; a recurrent agent takes no padding behind a prefix."""
    alone = prefix is not None and is_recurrent(agent) and any(drafts[i].read for i in rows)
    return [[i] for i in rows] if alone else [rows]


def resume(
    agent: Agent, batch: Batch, prefix: Prefix | None, rows: list[int], more: Sequence[list[int]]
) -> tuple[Batch, Prefix | None]:
    """These rows of a batch, read again from the prefix on, with token ids after each.

    Args:
        agent: who reads.
        batch, prefix: as the rows began.
        rows: which.
        more: per row; padded at the left again.
    """
    index = torch.tensor(rows, device=agent.device)
    before = None if prefix is None else prefix.rows(index)
    pieces, starts = [], []
    for i, ids in zip(rows, more, strict=True):
        real_L = batch.real[i]
        added_AD = agent.embed(torch.tensor(ids, dtype=torch.long, device=agent.device))
        pieces.append(torch.cat([batch.embeds[i][real_L], added_AD]))
        starts.append(int(batch.positions[i][real_L][0]))
    longest = max(map(len, pieces))
    embeds = pieces[0].new_zeros(len(rows), longest, pieces[0].shape[-1])
    real = batch.real.new_zeros(len(rows), longest)
    positions = batch.positions.new_zeros(len(rows), longest)
    for i, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
        count = len(piece)
        embeds[i, longest - count :], real[i, longest - count :] = piece, True
        places = torch.arange(count, device=agent.device)
        positions[i, longest - count :] = start + places
    return Batch(embeds, real, positions, full=len(set(map(len, pieces))) == 1), before
