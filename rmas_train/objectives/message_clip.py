"""A bound on what one row sends back through one message."""

from __future__ import annotations

import torch
from torch import Tensor

from rmas_train.engine.inputs import Message
from rmas_train.topology import Edge


class MessageClip:
    """Bounds the gradient that one row sends back through one message.

    Through frozen, confident agents gradients grow backwards over rounds, and very unequally: few
    rows near a decision carry hundreds of times the median and drown all others. Unlike clipping
    a link's summed gradient, this keeps the other rows' share. Biased where it bites, exact where
    it does not. A row's bound does not depend on batch, micro-batches or ranks.

    Args:
        largest: L2 norm of d(summed loss of a row) / d(one message of that row), (M, D).
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest
        self._factor = torch.ones(())

    def measure(self, loss: Tensor) -> None:
        """Learn in backward what the summed loss is multiplied by; its hook runs before all."""
        loss.register_hook(self._set_factor)

    def __call__(self, message: Message, edge: Edge, round_: int) -> Message:  # noqa: ARG002
        """The message itself; its gradient will be bounded. An intervention."""
        for tensor in message.tensors():
            if tensor.requires_grad:
                tensor.register_hook(self._bound)
        return message

    def _set_factor(self, grad: Tensor) -> None:
        self._factor = grad.abs().max()

    def _bound(self, grad_BMD: Tensor) -> Tensor:
        norm_B = grad_BMD.flatten(1).norm(dim=1)
        limit = self._largest * self._factor.to(norm_B)
        return grad_BMD * (limit / norm_B.clamp_min(limit))[:, None, None]
