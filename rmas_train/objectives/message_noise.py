"""Noise on messages in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmas_train.data.sampling import stream_seed
from rmas_train.engine.inputs import Message
from rmas_train.topology import Edge


@dataclass(frozen=True)
class MessageNoise:
    """Adds Gaussian noise to every message; an intervention for one unroll.

    What a row gets depends on seed, step, row, edge and round alone, so neither on micro-batches
    nor on ranks, and a resumed run draws the same.

    Args:
        size: standard deviation, over the rms of the row's message.
        seed: the run's root seed.
        step: optimizer step.
        rows: indices of the unroll's rows.
    """

    size: float
    seed: int
    step: int
    rows: Sequence[int]

    def __call__(self, message: Message, edge: Edge, round_: int) -> Message:
        return message.with_tensors([self._noisy(x, edge, round_) for x in message.tensors()])

    def _noisy(self, x_BMD: Tensor, edge: Edge, round_: int) -> Tensor:
        drawn = [self._draw(row, edge, round_, x_BMD.shape[1:]) for row in self.rows]
        noise_BMD = torch.stack(drawn).to(x_BMD)
        rms_B11 = x_BMD.detach().pow(2).mean((1, 2), keepdim=True).sqrt()
        return x_BMD + self.size * rms_B11 * noise_BMD

    def _draw(self, row: int, edge: Edge, round_: int, shape: torch.Size) -> Tensor:
        seed = stream_seed(self.seed, "message noise", self.step, row, edge.key, round_)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
