"""Thoughts that are known already: rollouts of prompts into which no message goes.

Such a rollout depends on the prompts and on the inner link alone. In an evaluation the trained
system and its controls share it, and so do all validations of one training.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor, nn

Thought = tuple[Tensor, Tensor]  # hidden states and latents, (B, M, D) each


class ThoughtStore:
    """Rollouts by agent, inner link and prompts; least recently used out first.

    The whole batch of prompts is the key: rounding depends on the batch, and whether a thought is
    found here must not change a result.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self._limit, self._bytes = limit, 0
        self._found: OrderedDict[Hashable, Thought] = OrderedDict()

    def get(self, key: Hashable, think: Callable[[], Thought]) -> Thought:
        """The thought under this key; if there is none, ``think`` makes it."""
        thought = self._found.pop(key, None)
        if thought is None:
            thought = think()
            self._bytes += _bytes(thought)
        self._found[key] = thought
        while self._bytes > self._limit and self._found:
            self._bytes -= _bytes(self._found.popitem(last=False)[1])
        return thought


def parameters_hash(link: nn.Module) -> str:
    """Of a link's parameters, bit by bit."""
    digest = hashlib.sha256()
    for name, tensor in link.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _bytes(thought: Thought) -> int:
    return sum(x.numel() * x.element_size() for x in thought)
