"""Controls whose messages are changed so that nothing of the question is left, or none can be read.

Where a message is replaced by something made from those of other rows, these are the rows of its
group (``controls.GROUP``), in the same round on the same edge, without its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rmas_train.data.sampling import stream_seed
from rmas_train.engine.inputs import LatentMessage, Message
from rmas_train.recursion import Intervention, Rows
from rmas_train.runs.evaluated import other_rows
from rmas_train.systems.base import Answer, Built, Ingredients, NotApplicable, SystemEntry
from rmas_train.systems.controls import GROUP, ONE_ROW, stretches
from rmas_train.systems.latent import LatentSystem, latent_system
from rmas_train.systems.looks import BUILTIN
from rmas_train.topology import Edge

Change = Callable[[Tensor, torch.Generator], Tensor]  # (N, M, D) of a group -> the same shape


def mean_of_others(vectors_NMD: Tensor, draw: torch.Generator) -> Tensor:  # noqa: ARG001
    """For each row the mean of the other rows' messages."""
    count = len(vectors_NMD)
    return (vectors_NMD.sum(0) - vectors_NMD) / (count - 1)


def matched_noise(vectors_NMD: Tensor, draw: torch.Generator) -> Tensor:
    """Gaussian noise with the mean and the covariance of the other rows' messages.

    A Gaussian mixture of centred messages has their covariance over all positions and coordinates;
    a row's own message gets no weight in it.
    """
    count = len(vectors_NMD)
    mean_MD = vectors_NMD.mean(0)
    weights_NN = torch.randn(count, count, generator=draw).fill_diagonal_(0) / math.sqrt(count - 1)
    weights_NN = weights_NN.to(vectors_NMD)
    return mean_MD + torch.einsum("nk,kmd->nmd", weights_NN, vectors_NMD - mean_MD)


def rotated(vectors_NMD: Tensor, draw: torch.Generator) -> Tensor:
    """The same random rotation for all: norms and angles stay, and no agent can read it."""
    width = vectors_NMD.shape[-1]
    square = torch.randn(width, width, generator=draw, dtype=torch.float64)
    q_DD, r_DD = torch.linalg.qr(square)
    q_DD = q_DD * r_DD.diagonal().sign()  # uniform over all rotations (Mezzadri 2007)
    return vectors_NMD @ q_DD.to(vectors_NMD)


def by_group(change: Change, name: str, seed: int, first: int) -> Intervention:
    """The change on every group of rows; what it draws depends on group, edge and round alone."""

    def intervene(message: Message, edge: Edge, round_: int) -> Message:
        assert isinstance(message, LatentMessage)
        found = []
        for begin, end in stretches(len(message.vectors), GROUP):
            stream = f"{name} {(first + begin) // GROUP} {edge.key} {round_}"
            draw = torch.Generator().manual_seed(stream_seed(seed, stream))
            found.append(change(message.vectors[begin:end], draw))
        return LatentMessage(torch.cat(found), message.counts)

    return intervene


def everywhere(change: Change, name: str, seed: int) -> Intervention:
    """The same change for all rows; what it draws depends on the edge alone."""

    def intervene(message: Message, edge: Edge, round_: int) -> Message:  # noqa: ARG001
        assert isinstance(message, LatentMessage)
        draw = torch.Generator().manual_seed(stream_seed(seed, f"{name} {edge.key}"))
        return LatentMessage(change(message.vectors, draw), message.counts)

    return intervene


def cross_task(ingredients: Ingredients) -> Built:
    """Messages of rows of another data set, made by the same system at the same depth.

    Raises:
        ConfigError, DataError: see ``other_rows``.
    """
    columns = set().union(*(p.columns for p in ingredients.team.prompts.values()))
    others = other_rows(ingredients.config, columns, ingredients.rows)
    latent = latent_system(ingredients)
    if isinstance(latent, NotApplicable):
        return latent
    return CrossTask(latent, others, ingredients.first)


@dataclass(frozen=True)
class CrossTask:
    """The latent system with the messages of other rows; see ``cross_task``.

    Attributes:
        latent: the system.
        others: rows of another task, in turn.
        first: index of the first row that is asked.
    """

    latent: LatentSystem
    others: Rows
    first: int
    uses_rounds: bool = True
    mixes_rows: bool = True  # which other row a row gets depends on its place

    @property
    def latent_length(self) -> int:
        return self.latent.latent_length

    def answer(self, rows: Rows, rounds: int) -> list[Answer]:
        """One answer per row of a part."""
        chosen = [self.others[(self.first + i) % len(self.others)] for i in range(len(rows))]
        system, size = self.latent.system, self.latent.batch_size
        sent = system.messages(chosen, rounds, batch_size=size)

        def replaced(message: Message, edge: Edge, round_: int) -> Message:
            assert isinstance(message, LatentMessage)
            return LatentMessage(sent[round_, edge.key].to(message.vectors), message.counts)

        return system.answer(rows, rounds, batch_size=size, interventions=[replaced])


def _grouped(change: Change, name: str) -> SystemEntry:
    def build(ingredients: Ingredients) -> Built:
        if len(ingredients.rows) < 2:
            return ONE_ROW
        seed, first = ingredients.config.seed, ingredients.first
        change_rows = by_group(change, name, seed, first)
        return latent_system(ingredients, interventions=[change_rows], mixes_rows=True)

    return SystemEntry("latent", name, build, BUILTIN[f"latent {name}"])


def _rotation(ingredients: Ingredients) -> Built:
    seed = ingredients.config.seed
    return latent_system(ingredients, interventions=[everywhere(rotated, "rotation", seed)])


MEAN = _grouped(mean_of_others, "mean")
NOISE = _grouped(matched_noise, "noise")
ROTATION = SystemEntry("latent", "rotation", _rotation, BUILTIN["latent rotation"])
CROSS_TASK = SystemEntry("latent", "cross_task", cross_task, BUILTIN["latent cross_task"])
