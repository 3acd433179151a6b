"""Which query of a KV cache sees which key: positions and padding of each block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rmas_train.engine.attention import Masks


@dataclass(frozen=True)
class Span:
    """Positions of a block's tokens and which are real, (B, L) each; ``full``: all of them."""

    positions: Tensor
    real: Tensor
    full: bool

    def __add__(self, other: Span) -> Span:
        return Span(
            torch.cat([self.positions, other.positions], dim=1),
            torch.cat([self.real, other.real], dim=1),
            self.full and other.full,
        )

    def rows(self, index: Tensor) -> Span:
        return Span(self.positions[index], self.real[index], self.full)


class Visibility:
    """Blocks of positions, shared by all layers of a KV cache; knows which query sees which key.

    Args:
        first: span of the frozen prefix, if any.
        most: number of blocks; what comes after that joins the last one.
    """

    def __init__(self, first: Span | None, most: int) -> None:
        self.spans: list[Span] = [first] if first else []
        self._most = most
        self._masks: dict[int | None, Masks] = {}

    @property
    def is_filled(self) -> bool:
        """The last block holds what came after the prompt, too."""
        return len(self.spans) == self._most

    def append(self, queries: Span) -> None:
        self._masks, self._queries = {}, queries
        if self.is_filled:
            self.spans[-1] = self.spans[-1] + queries
        else:
            self.spans.append(queries)

    def masks(self, window: int | None) -> Masks:
        """See ``SeesBlocks``; the same for all layers with the same window."""
        if window is not None and window >= sum(s.real.shape[1] for s in self.spans):
            window = None
        if window not in self._masks:
            *past, last = self.spans
            masks = [_visible(self._queries, span, window) for span in past]
            is_start = not past and last.real.shape == self._queries.real.shape
            self._masks[window] = [*masks, _visible(self._queries, last, window, True, is_start)]
        return self._masks[window]


def _visible(
    queries: Span, keys: Span, window: int | None, newest: bool = False, is_start: bool = False
) -> Tensor | None:
    """(B, 1, T, L), or None: all is visible, or causal by the kernel's own switch at the start."""
    causal = newest and queries.real.shape[1] > 1
    if keys.full and window is None and (is_start or not causal):
        return None
    distance_BTL = queries.positions[:, :, None] - keys.positions[:, None, :]
    seen_BTL = keys.real[:, None, :].expand_as(distance_BTL)
    if causal:
        seen_BTL = seen_BTL & (distance_BTL >= 0)
    if window is not None:
        seen_BTL = seen_BTL & (distance_BTL < window)
    if not queries.full:  # padding sees anything: kernels give NaN to a query that sees nothing
        seen_BTL = seen_BTL | ~queries.real[:, :, None]
    return seen_BTL[:, None]
