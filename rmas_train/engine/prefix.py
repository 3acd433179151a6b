"""Frozen prefixes: what stands before a prompt's first slot depends on no link.

Its keys, values and recurrent states are computed once, without a graph, and reused in every round;
with a ``PrefixCache`` over epochs too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.engine.cache_layers import State
from rmas_train.engine.kv_cache import KVCache, Prefix, layer_kinds
from rmas_train.engine.sequences import embed_ids
from rmas_train.engine.visibility import Span


@torch.no_grad()
def read_prefix(agent: Agent, ids: Sequence[list[int]]) -> Prefix:
    """Read the beginnings of a batch of prompts; padded at the left."""
    cache = KVCache(agent)
    cache.read(embed_ids(agent, ids))
    return cache.state()


Agree = Callable[[bool], bool]


class PrefixCache:
    """Prefixes by row, over steps and epochs, least recently used out first.

    They are computed one row at a time: rounding depends on the batch, and whether a row is found
    here must not change a result.

    Args:
        limit: bytes; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.bytes = limit, 0
        self._rows: OrderedDict[tuple[str, tuple[int, ...]], Prefix] = OrderedDict()

    def get(self, agent: Agent, ids: Sequence[list[int]]) -> Prefix:
        """The rows' prefixes as one, padded at the left."""
        found = []
        for row in ids:
            key = (agent.name, tuple(row))
            prefix = self._rows.pop(key, None) or self._add(read_prefix(agent, [row]))
            self._rows[key] = prefix
            found.append(prefix)
        while self.bytes > self._limit:
            self.bytes -= self._rows.popitem(last=False)[1].bytes
        return stack(agent, found)

    def _add(self, prefix: Prefix) -> Prefix:
        self.bytes += prefix.bytes
        return prefix


class PrefixStore:
    """Where the unrolls of one recursion keep their frozen prefixes.

    Args:
        limit: bytes to keep from one unroll to the next; 0: each unroll reads its own.
        agree: where processes share the layers of an agent, makes a yes of all of them out of each
            one's, since their forwards must be equally many.
    """

    def __init__(self, limit: int = 0, agree: Agree = bool) -> None:
        self.limit, self._agree = limit, agree
        self.cache = PrefixCache(limit) if limit else None

    @property
    def bytes(self) -> int:
        """Kept now."""
        return self.cache.bytes if self.cache else 0

    def begin(self, keep: bool = True) -> UnrollPrefixes:
        """For one unroll; ``keep``: hold prefixes from call to call (see there)."""
        return UnrollPrefixes(self.cache, keep, self._agree)


class UnrollPrefixes:
    """Prefixes of one unroll's rows, reused where an agent's are the same as in an earlier call.

    Args:
        cache: keeps them beyond the unroll.
        keep: hold them from call to call; False where many rows pass in chunks.
        agree: see ``PrefixStore``.
    """

    def __init__(
        self, cache: PrefixCache | None = None, keep: bool = True, agree: Agree = bool
    ) -> None:
        self._cache, self._keep, self.agree = cache, keep, agree
        self._latest: dict[tuple[str, tuple[int, ...]], tuple[list[list[int]], Prefix]] = {}

    def get(self, agent: Agent, rows: Sequence[int], ids: list[list[int]]) -> Prefix:
        """Prefix of these rows of the unroll, whose tokens are ``ids``."""
        key = (agent.name, tuple(rows))
        before, prefix = self._latest.get(key, (None, None))
        if not self.agree(before == ids) or prefix is None:
            prefix = self._cache.get(agent, ids) if self._cache else read_prefix(agent, ids)
            if self._keep:
                self._latest[key] = (ids, prefix)
        return prefix


def stack(agent: Agent, prefixes: Sequence[Prefix]) -> Prefix:
    """One row each to one batch, padded at the left."""
    length = max(p.span.real.shape[1] for p in prefixes)
    lengths = {p.span.real.shape[1] for p in prefixes}
    span = Span(
        torch.cat([_pad(p.span.positions, length, -1) for p in prefixes]),
        torch.cat([_pad(p.span.real, length, -1) for p in prefixes]),
        full=len(lengths) == 1,
    )
    states: list[State] = []
    for i, kind in enumerate(layer_kinds(agent)):
        rows = [p.states[i] for p in prefixes]
        if kind != "linear_attention":
            rows = [(_pad(k, length, -2), _pad(v, length, -2)) for k, v in rows]
        states.append((torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows])))
    return Prefix(span, states)


def _pad(x: Tensor, length: int, dim: int) -> Tensor:
    """Zeros (False) before x, up to this length in a dimension counted from the end."""
    missing = length - x.shape[dim]
    return F.pad(x, [0, 0] * (-dim - 1) + [missing, 0]) if missing else x
