"""Memory and operations of one outer step, counted without weights.

The code of the training step itself runs on PyTorch's meta device, where tensors have shapes and
no data; every allocation and every matrix product passes a counter. Bytes and operations are affine
in each agent's number of layers, so that runs with few layers give those of any depth.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from rmas_train.planning.gathers import Passes

KINDS = ("frozen_forward", "graph_forward", "backward")


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Two products; no causal discount, as in PyTorch's formulas for the GPU kernels."""
    rows, heads, queries, width = query.shape
    return 2 * rows * heads * queries * key.shape[2] * (width + value.shape[3])


def _attention_backward(
    _: Any, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any
) -> int:
    """Five products: the scores again, and four for the gradients."""
    return _attention(query, key, value) * 5 // 2


# The CPU's attention kernel, which PyTorch's own counter leaves out.
_aten: Any = torch.ops.aten
ATTENTION_FLOPS: dict[Any, Any] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
for _formula in ATTENTION_FLOPS.values():
    _formula._get_raw = True  # it takes tensors, where the counter's default is shapes


@dataclass
class Cost:
    """What a step needs beside weights, links and optimizer state.

    Attributes:
        peaks: bytes allocated at the peak of each phase; a phase begins with a model's forward.
        flops: operations (two per multiply-add) by kind, see ``KINDS``; a forward that runs again
            in backward counts as ``graph_forward``.
        forwards, backwards: per model, how often each of its decoder layers is gone through.
        gathers: per model, how often FSDP2 would gather each of them, see ``Passes``.
        kept: bytes that the objective holds after the step, for later ones; one entry.
    """

    peaks: list[float] = field(default_factory=lambda: [0.0])
    flops: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    forwards: list[float] = field(default_factory=list)
    backwards: list[float] = field(default_factory=list)
    gathers: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=lambda: [0.0])

    @property
    def peak(self) -> float:
        return max(self.peaks)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _sums(self.peaks, other.peaks),
            {k: self.flops[k] + other.flops[k] for k in KINDS},
            _sums(self.forwards, other.forwards),
            _sums(self.backwards, other.backwards),
            _sums(self.gathers, other.gathers),
            _sums(self.kept, other.kept),
        )

    def __mul__(self, factor: float) -> Cost:
        every = (self.peaks, self.forwards, self.backwards, self.gathers, self.kept)
        peaks, *passes = ([factor * x for x in xs] for xs in every)
        return Cost(peaks, {k: factor * self.flops[k] for k in KINDS}, *passes)


def _sums(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(ours, theirs, strict=True)]


class Counter(TorchDispatchMode):
    """Counts what runs under it.

    Args:
        known: tensors that exist already, such as weights.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.cost, self._now, self._in_backward = Cost(), 0, False
        self._known = {t.untyped_storage()._cdata for t in known}
        self._live: dict[int, int] = {}

    def next_phase(self, *_: Any) -> None:
        self.cost.peaks.append(self._now)

    def begin_backward(self) -> None:
        self._in_backward = True

    def in_backward(self) -> bool:
        return self._in_backward

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        count = flop_registry.get(packet) or ATTENTION_FLOPS.get(packet)
        if count is not None:
            self.cost.flops[self._kind()] += count(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _kind(self) -> str:
        if torch.is_grad_enabled():
            return "graph_forward"
        return "backward" if self._in_backward else "frozen_forward"

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._live or key in self._known:
            return
        self._live[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.cost.peaks[-1] = max(self.cost.peaks[-1], self._now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._live.pop(key)


def count(models: Sequence[Any], known: Sequence[Tensor], step: Callable[[], Tensor]) -> Cost:
    """Cost of ``step()``, which gives a loss, and of going back from it."""
    with Counter(known) as counter:
        hooks = [m.base_model.register_forward_pre_hook(counter.next_phase) for m in models]
        passes = [Passes(m, counter.in_backward) for m in models]
        try:
            loss = step()
            counter.next_phase()
            counter.begin_backward()
            loss.backward()
        finally:
            for hook in (*hooks, *passes):
                hook.remove()
    counter.cost.forwards = [p.forwards for p in passes]
    counter.cost.backwards = [p.backwards for p in passes]
    counter.cost.gathers = [p.gathers for p in passes]
    return counter.cost


def extrapolate(at: Callable[[list[int]], Cost], depths: Sequence[float]) -> Cost:
    """Cost at any depth from one shallow run, and one more for each agent.

    Args:
        at: per agent 1 or 2 units of layers -> counted cost.
        depths: per agent, the number of units wanted.
    """
    ones = [1] * len(depths)
    base = total = at(ones)
    for i, depth in enumerate(depths):
        deeper = at([*ones[:i], 2, *ones[i + 1 :]])
        total = total + (deeper + base * -1.0) * (depth - 1)
    return total
