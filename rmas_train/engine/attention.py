"""Attention over blocks of keys and values that are never joined.

The ordinary cache concatenates all keys and values at every latent step, and backward keeps each
copy. Here a layer's keys and values stay in pieces: the frozen prefix, the rest of the prompt, and
the latent steps. Queries are scored against each piece and one softmax runs over all scores (equal
to attending to each piece alone and merging by log-sum-exp). Backward keeps references and computes
the weights again, so an agent call keeps O(prompt + latent^2) and not O(prompt * latent).

Tensor names: B rows, H query heads, K key heads, G = H / K, T queries, L keys, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "rmas_blocks"
Masks = list[Tensor | None]


class SeesBlocks(Protocol):
    def masks(self, window: int | None) -> Masks:
        """Per block, (B, 1, T, L), True where a query sees a key; None: it sees all of them."""
        ...


@dataclass(frozen=True)
class Blocks:
    """One layer's keys and values (B, K, L, D) by block, and their visibility."""

    pairs: list[tuple[Tensor, Tensor]]
    visibility: SeesBlocks


def block_attention(
    module: Any,
    query: Tensor,
    key: Blocks,
    value: Blocks,  # noqa: ARG001  the same object as key
    attention_mask: None,  # noqa: ARG001
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """An attention function of the transformers registry; its cache hands ``Blocks`` through."""
    if unused.get("softcap") is not None:
        raise ValueError("block attention knows no soft cap on scores")  # found at loading
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    masks = key.visibility.masks(sliding_window)
    if len(key.pairs) == 1:
        ((keys, values),) = key.pairs
        return sdpa_attention_forward(module, query, keys, values, masks[0], scaling=scaling)
    past = sum(keys.shape[-2] for keys, _ in key.pairs[:-1])
    if past <= query.shape[2]:  # joining costs little; the library's kernel keeps no scores
        keys, values = (torch.cat(x, dim=-2) for x in zip(*key.pairs, strict=True))
        mask = torch.cat(
            [_as_mask(m, query, k) for m, (k, _) in zip(masks, key.pairs, strict=True)], dim=-1
        )
        return sdpa_attention_forward(module, query, keys, values, mask, scaling=scaling)
    flat = [x for pair in key.pairs for x in pair]
    if not torch.is_grad_enabled():  # the same operations without the bookkeeping
        return _attend(query, scaling, masks, flat).transpose(1, 2), None
    out_BHTD: Tensor = _BlockAttention.apply(query, scaling, masks, *flat)
    return out_BHTD.transpose(1, 2), None


def _as_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """``mask``, or all True, over one block: (B, 1, T, L)."""
    if mask is not None:
        return mask
    shape = (query.shape[0], 1, query.shape[2], key.shape[2])
    return torch.ones(shape, dtype=torch.bool, device=query.device)


AttentionInterface.register(NAME, block_attention)


@contextmanager
def blocks_for(model: Any) -> Iterator[None]:
    """Let a model attend to blocks. It is deliberately not among the library's mask functions,
    so the model prepares no mask and ``SeesBlocks`` alone decides."""
    before, model.config._attn_implementation = model.config._attn_implementation, NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, scaling: float, masks: Masks, *flat: Tensor) -> Tensor:
        ctx.save_for_backward(query, *flat)
        ctx.scaling, ctx.masks = scaling, masks
        return _attend(query, scaling, masks, flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHTD: Tensor) -> tuple[Tensor | None, ...]:
        query, *flat = ctx.saved_tensors
        keys, values = flat[::2], flat[1::2]
        weights = _weights(query, ctx.scaling, ctx.masks, keys)
        query_r, grad_r = _by_key_head(query, keys[0]), _by_key_head(grad_BHTD, keys[0])
        d_weights = torch.cat([grad_r @ v.transpose(-1, -2) for v in values], dim=-1)
        weighted = weights * d_weights
        d_scores = weighted - weights * weighted.sum(-1, keepdim=True)
        d_scores = (d_scores * ctx.scaling).to(query.dtype)
        weights = weights.to(query.dtype)
        sizes = [k.shape[-2] for k in keys]
        grads: list[Tensor | None] = []
        d_query: Tensor | None = None
        parts = zip(d_scores.split(sizes, -1), weights.split(sizes, -1), keys, strict=True)
        for i, (d_score, weight, key) in enumerate(parts):
            d_query = d_score @ key if d_query is None else d_query + d_score @ key
            needs_key, needs_value = ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i]
            grads.append(d_score.transpose(-1, -2) @ query_r if needs_key else None)
            grads.append(weight.transpose(-1, -2) @ grad_r if needs_value else None)
        assert d_query is not None
        return d_query.view(query.shape), None, None, *grads


def _attend(query: Tensor, scaling: float, masks: Masks, flat: Sequence[Tensor]) -> Tensor:
    keys, values = flat[::2], flat[1::2]
    weights = _weights(query, scaling, masks, keys).to(values[0].dtype)
    parts = weights.split([v.shape[-2] for v in values], dim=-1)
    total = parts[0] @ values[0]
    for part, value in zip(parts[1:], values[1:], strict=True):
        total = total + part @ value
    return total.view(query.shape[:-1] + values[0].shape[-1:])


def _by_key_head(x_BHTD: Tensor, key_BKLD: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, K, G * T, D): the query heads that share a key head, side by side."""
    rows, heads = key_BKLD.shape[:2]
    return x_BHTD.reshape(rows, heads, -1, x_BHTD.shape[-1])


def _weights(query: Tensor, scaling: float, masks: Masks, keys: Sequence[Tensor]) -> Tensor:
    """Attention weights over all blocks, (B, K, G * T, sum of L), float32 or wider."""
    scores, queries = [], query.shape[2]
    query_r = _by_key_head(query, keys[0]) * scaling
    for key, mask in zip(keys, masks, strict=True):
        score = query_r @ key.transpose(-1, -2)
        score = score.to(torch.promote_types(score.dtype, torch.float32))
        if mask is not None:
            # The least finite number, so that padding, which sees nothing, stays finite.
            by_head = score.view(*score.shape[:2], -1, queries, score.shape[-1])
            by_head.masked_fill_(~mask[:, :, None], torch.finfo(score.dtype).min)
        scores.append(score)
    return torch.cat(scores, dim=-1).softmax(-1)


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
