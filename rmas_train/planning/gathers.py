"""How often a step runs an agent's layers, and how often FSDP2 would gather them for it.

FSDP2, a unit per decoder layer, gathers before a forward and before a backward, and frees them
after each; but in a forward that runs inside backward (``checkpoint: agent``) it keeps the layer
until backward has gone through it, or, where backward had entered the layer before, until the whole
backward ends. Fewer gathers then, and all layers of an agent in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rmas_train.agents.agent import decoder_layers


class Passes:
    """Watches a model's first decoder layer; all layers run together, so the first stands for all.

    But for ``gradient: window``, where the first layer's input has no graph at the beginning of a
    window and the others' has: ``gathers`` is then a few percent low.

    Args:
        model: a causal LM.
        in_backward: whether the step's backward has begun.

    Attributes:
        forwards, backwards: through the layer.
        gathers: of its weights, if it were sharded.
    """

    def __init__(self, model: Any, in_backward: Callable[[], bool]) -> None:
        self.forwards = self.backwards = self.gathers = 0
        self._in_backward = in_backward
        self._whole = False  # the layer is gathered
        self._going_back = False  # backward entered the layer and has not ended
        self._left = False  # and has left it since
        layer = decoder_layers(model)[0]
        self._hooks = [
            layer.register_forward_pre_hook(self._before, with_kwargs=True),
            layer.register_forward_hook(self._after),
        ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        self.forwards += 1
        self._gather()
        hidden = _first_tensor((args, kwargs))
        if not self._going_back and torch.is_grad_enabled() and hidden.requires_grad:
            hidden.register_hook(self._leave)

    def _after(self, module: Any, args: Any, output: Any) -> None:  # noqa: ARG002
        hidden = _first_tensor(output)
        if hidden.requires_grad:
            hidden.register_hook(self._count_backward)
        if self._going_back:
            return
        self._left = False
        if not self._in_backward():
            self._whole = False
        if hidden.requires_grad:
            hidden.register_hook(self._enter)

    def _count_backward(self, grad: Tensor) -> None:  # noqa: ARG002
        self.backwards += 1

    def _enter(self, grad: Tensor) -> None:  # noqa: ARG002
        if not self._going_back:
            self._going_back = True
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._end)
        self._left = False
        self._gather()

    def _leave(self, grad: Tensor) -> None:  # noqa: ARG002
        self._left, self._whole = True, False

    def _end(self) -> None:
        if not self._left:
            self._whole = False
        self._going_back = self._left = False

    def _gather(self) -> None:
        self.gathers += not self._whole
        self._whole = True


def _first_tensor(tree: Any) -> Tensor:
    return next(x for x in tree_leaves(tree) if isinstance(x, Tensor))
