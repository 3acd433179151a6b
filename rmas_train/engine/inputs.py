"""What an agent reads: embeddings of prompts, their slots, and the messages that fill these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt, tokenise


@dataclass(frozen=True)
class Batch:
    """Input embeddings of a batch.

    Attributes:
        embeds: (B, L, D) in the agent's dtype.
        real: (B, L), False on padding.
        positions: (B, L); position ids count real tokens only.
        full: there is no padding (known without asking the device).
    """

    embeds: Tensor
    real: Tensor
    positions: Tensor
    full: bool

    def extend(self, embeds_BMD: Tensor) -> Batch:
        """The same with M more positions for every row."""
        added = embeds_BMD.shape[1]
        real = self.real.new_ones(self.real.shape[0], added)
        steps = torch.arange(1, added + 1, device=self.positions.device)
        return Batch(
            torch.cat([self.embeds, embeds_BMD], dim=1),
            torch.cat([self.real, real], dim=1),
            torch.cat([self.positions, self.positions[:, -1:] + steps], dim=1),
            self.full,
        )

    def next(self, embeds_BD: Tensor) -> Batch:
        """One more position for every row."""
        one_B1 = self.real.new_ones(self.real.shape[0], 1)
        return Batch(embeds_BD[:, None], one_B1, self.positions[:, -1:] + 1, full=True)

    def keep(self, index: Tensor) -> Batch:
        """These rows only."""
        return Batch(self.embeds[index], self.real[index], self.positions[index], self.full)


def fill_text(prompt: EncodedPrompt, texts: Mapping[str, list[int]]) -> list[int]:
    """Token ids of a prompt whose slots hold text (text recursion, inner stage)."""
    ids = list(prompt.ids)
    for source, position in reversed(prompt.slots):
        ids[position:position] = texts.get(source, [])
    return ids


@dataclass(frozen=True)
class Slot:
    """What stands in a slot, for all rows: token ids, or vectors.

    Attributes:
        counts: per row, how many positions it takes.
        ids: per row; None: vectors.
        vectors: (B, M, D), of which the first ``counts`` of each row count.
    """

    counts: list[int]
    ids: list[list[int]] | None = None
    vectors: Tensor | None = None

    def rows(self, index: Sequence[int]) -> Slot:
        """These rows, in this order."""
        return Slot(
            [self.counts[i] for i in index],
            None if self.ids is None else [self.ids[i] for i in index],
            None if self.vectors is None else self.vectors[list(index)],
        )

    def flat(self) -> Tensor | None:
        """The vectors that count, row after row, (..., D)."""
        if self.vectors is None or set(self.counts) == {self.vectors.shape[1]}:
            return self.vectors
        return take_first(self.vectors, self.counts)


def embed_prompts(
    agent: Agent,
    prompts: Sequence[EncodedPrompt],
    slots: Mapping[str, Slot],
    endings: Sequence[list[int]] | None = None,
    skip: Sequence[int] | None = None,
) -> Batch:
    """Prompts with their slots filled.

    Args:
        agent: whose embeddings are used.
        prompts: one per row, all with the same slots.
        slots: source -> what stands in its slot; a slot without anything stays empty.
        endings: token ids after each prompt (a teacher-forced answer), or None.
        skip: tokens at each prompt's beginning that a prefix holds; they end before any slot.
    """
    vectors = {source: x for source, slot in slots.items() if (x := slot.flat()) is not None}
    rows = []
    for i, prompt in enumerate(prompts):
        ids = list(prompt.ids)
        for source, position in reversed(prompt.slots):
            if source in vectors:
                ids[position:position] = [_mark(vectors, source)] * slots[source].counts[i]
            elif source in slots:
                ids[position:position] = (slots[source].ids or [])[i]
        rows.append(ids[skip[i] :] if skip else ids)
    return embed_ids(agent, rows, endings, skip, vectors)


def embed_ids(
    agent: Agent,
    rows: Sequence[list[int]],
    endings: Sequence[list[int]] | None = None,
    skip: Sequence[int] | None = None,
    vectors: Mapping[str, Tensor] | None = None,
) -> Batch:
    """Token ids, padded at the left; their endings, padded at the right.

    ``vectors``: source -> (..., d) for the places that ``_mark`` gave it, row after row.
    """
    ids_BL, real_BL = pad_left(rows, agent.pad_id)
    full = len(set(map(len, rows))) == 1
    if endings is not None:
        ends_BA, real_BA = pad_right(endings, agent.pad_id)
        ids_BL, real_BL = torch.cat([ids_BL, ends_BA], 1), torch.cat([real_BL, real_BA], 1)
        full = full and len(set(map(len, endings))) == 1
    positions_BL = positions(real_BL)
    if skip is not None:
        positions_BL = positions_BL + torch.tensor(skip)[:, None]
    ids_BL, real_BL, positions_BL = (x.to(agent.device) for x in (ids_BL, real_BL, positions_BL))
    embeds_BLD = agent.embed(ids_BL.clamp_min(0))
    for source, vectors_D in (vectors or {}).items():
        here_BL1 = (ids_BL == _mark(vectors or {}, source)).unsqueeze(-1)
        # Marks come row by row in order, and so do the vectors.
        embeds_BLD = embeds_BLD.masked_scatter(here_BL1, vectors_D.to(embeds_BLD))
    return Batch(embeds_BLD, real_BL, positions_BL, full)


def read_whole(agent: Agent, batch: Batch) -> Tensor:
    """Hidden states of whole sequences, (B, L, D), without a cache."""
    return agent.hidden(batch.embeds, batch.positions, batch.real)


def pad_left(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and which are real, (batch, length) each."""
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + row for row in rows]
    real = [[False] * (width - len(row)) + [True] * len(row) for row in rows]
    return torch.tensor(ids, dtype=torch.long), torch.tensor(real, dtype=torch.bool)


def pad_right(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and which are real, (batch, length) each."""
    ids, real = pad_left([row[::-1] for row in rows], pad_id)
    return ids.flip(1), real.flip(1)


def positions(real: Tensor) -> Tensor:
    """Position ids that count real tokens only, (batch, length)."""
    return (real.long().cumsum(-1) - 1).clamp_min(0)


def take_first(x_BLD: Tensor, counts: Sequence[int]) -> Tensor:
    """The first vectors of each row, one after the other, (sum of counts, d)."""
    places = [[i, k] for i, count in enumerate(counts) for k in range(count)]
    row_N, place_N = torch.tensor(places, device=x_BLD.device).unbind(1)
    return x_BLD[row_N, place_N]


def _mark(messages: Mapping[str, Tensor], source: str) -> int:
    """A negative id for each slot's places; no vocabulary has one."""
    return -1 - list(messages).index(source)


@runtime_checkable
class Message(Protocol):
    """What crosses an edge in one round, for all rows of an unroll."""

    def rows(self, index: Sequence[int]) -> Message:
        """These rows, in this order."""
        ...

    def slot(self, agent: Agent) -> Slot:
        """What ``agent``, who receives it, reads in the slot."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """Tensors that carry gradients; a text has none."""
        ...

    def with_tensors(self, tensors: Sequence[Tensor]) -> Message:
        """The same message of other tensors, in the order of ``tensors()``."""
        ...


@dataclass(frozen=True)
class LatentMessage:
    """Vectors in the target's embedding space.

    Attributes:
        vectors: (B, M, D_target), float32.
        counts: per row, how many of its vectors count; None: all M.
    """

    vectors: Tensor
    counts: Sequence[int] | None = None

    def rows(self, index: Sequence[int]) -> LatentMessage:
        counts = None if self.counts is None else [self.counts[i] for i in index]
        return LatentMessage(self.vectors[list(index)], counts)

    def slot(self, agent: Agent) -> Slot:  # noqa: ARG002
        count, steps, _ = self.vectors.shape
        return Slot(list(self.counts or [steps] * count), vectors=self.vectors)

    def tensors(self) -> Sequence[Tensor]:
        return (self.vectors,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> LatentMessage:
        return replace(self, vectors=tensors[0])


@dataclass(frozen=True)
class TextMessage:
    """Text, one per row; its target reads it as plain text, with its own tokenizer.

    Attributes:
        most: tokens of the target, at most; None: all of the text.
    """

    texts: Sequence[str]
    most: int | None = None

    def rows(self, index: Sequence[int]) -> TextMessage:
        return TextMessage([self.texts[i] for i in index], self.most)

    def slot(self, agent: Agent) -> Slot:
        ids = [row[: self.most] for row in tokenise(agent, list(self.texts), plain=True)]
        return Slot([len(row) for row in ids], ids=ids)

    def tensors(self) -> Sequence[Tensor]:
        return ()

    def with_tensors(self, tensors: Sequence[Tensor]) -> TextMessage:  # noqa: ARG002
        return self
