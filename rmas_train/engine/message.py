"""What an edge carries: latent vectors, or text; a block of keys and values would be a third kind.

Tensor names: B rows, M latent steps, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import tokenise
from rmas_train.engine.sequences import Slot


class Message(Protocol):
    """What crosses an edge in one round, for all rows of an unroll."""

    def rows(self, index: Sequence[int]) -> Message:
        """These rows, in this order."""
        ...

    def slot(self, agent: Agent) -> Slot:
        """What ``agent``, who receives it, reads in the slot."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """What gradients go back through; none in a text."""
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
    """Text, one per row; its target reads it as plain text, with its own tokenizer."""

    texts: Sequence[str]

    def rows(self, index: Sequence[int]) -> TextMessage:
        return TextMessage([self.texts[i] for i in index])

    def slot(self, agent: Agent) -> Slot:
        ids = tokenise(agent, list(self.texts), plain=True)
        return Slot([len(row) for row in ids], ids=ids)

    def tensors(self) -> Sequence[Tensor]:
        return ()

    def with_tensors(self, tensors: Sequence[Tensor]) -> TextMessage:  # noqa: ARG002
        return self
