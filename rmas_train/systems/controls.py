"""Controls: the same evaluation with the channel cut or scrambled on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from rmas_train.data.sampling import permutation
from rmas_train.recursion import Deliver


def derangement(count: int, seed: int) -> list[int]:
    """A permutation without a fixed point: a seeded cyclic order, each row to the next one's place.

    With a single row there is none, and the row keeps its own message.
    """
    order = permutation(count, seed, "shuffled")
    result = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        result[here] = there
    return result


def shuffled(count: int, seed: int) -> Deliver:
    """Each row gets another row's message, over the whole test set, in every slot and round."""
    index = torch.tensor(derangement(count, seed))

    def deliver(message: Tensor) -> Tensor:
        return message[index.to(message.device)]

    return deliver
