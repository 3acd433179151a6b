"""The prompts of one agent call: messages in their slots, and frozen prefixes before them."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt
from rmas_train.engine.attention import Span
from rmas_train.engine.inputs import Batch, Message, Slot, embed_ids, embed_prompts
from rmas_train.engine.kv_cache import KVCache, Prefix, State, is_recurrent, layer_kinds
from rmas_train.errors import PrefixReuseWarning


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
        agree: where processes share the layers of an agent, returns whether all of them say yes,
            since all must run equally many forward passes.
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


Embedded = tuple[Batch, Prefix | None]  # what an agent reads now, and what it has read before


@dataclass(frozen=True)
class PromptBatch:
    """What an agent reads before it thinks or answers.

    Attributes:
        agent: who.
        prompts: one per row, with open slots.
        slots: source -> what stands in its slot.
        cuts: per row, how many tokens at the beginning are a frozen prefix.
        prefixes: where these are kept.
    """

    agent: Agent
    prompts: Sequence[EncodedPrompt]
    slots: Mapping[str, Slot]
    cuts: Sequence[int]
    prefixes: UnrollPrefixes

    @property
    def lengths(self) -> list[int]:
        """Per row, tokens and message vectors, frozen prefixes included."""
        slots = self.slots.values()
        return [len(p.ids) + sum(s.counts[i] for s in slots) for i, p in enumerate(self.prompts)]

    def filled(self, inbox: Mapping[str, Message]) -> PromptBatch:
        """The same prompts with these messages, of the same lengths, in their slots."""
        return replace(self, slots={s: m.slot(self.agent) for s, m in inbox.items()})

    def whole(self) -> PromptBatch:
        """The same without frozen prefixes: prompts are read from their beginning."""
        return replace(self, cuts=[0] * len(self.prompts))

    def parts(self, chunk: int | None) -> list[list[int]]:
        """Rows that are read together: at most ``chunk``, and for recurrent agents with equal
        lengths after the cut, since nothing may stand between the prefix and what follows."""
        count = len(self.prompts)
        size = chunk or count
        parts = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
        if is_recurrent(self.agent) and any(self.cuts):
            parts = [group for part in parts for group in self._by_length(part)]
        return parts

    def embed(self, part: Sequence[int], endings: Sequence[list[int]] | None = None) -> Embedded:
        """Some rows as input embeddings.

        Args:
            part: rows.
            endings: token ids after each prompt of ``part``.
        """
        everything = len(part) == len(self.prompts)
        prompts = [self.prompts[i] for i in part]
        cuts = [self.cuts[i] for i in part]
        slots = self.slots if everything else {s: x.rows(part) for s, x in self.slots.items()}
        batch = embed_prompts(self.agent, prompts, slots, endings, cuts)
        ids = [self.prompts[i].ids[: self.cuts[i]] for i in part]
        prefix = self.prefixes.get(self.agent, part, ids) if any(ids) else None
        return batch, prefix

    def _by_length(self, part: list[int]) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for i in part:
            filled = sum(slot.counts[i] for slot in self.slots.values())
            groups.setdefault(len(self.prompts[i].ids) - self.cuts[i] + filled, []).append(i)
        return list(groups.values())


def make_prompt_batch(
    agent: Agent,
    prompts: Sequence[EncodedPrompt],
    prefixes: UnrollPrefixes,
    inbox: Mapping[str, Message],
    later: Sequence[EncodedPrompt] | None = None,
) -> PromptBatch:
    """Prompts with their cuts: before the first slot, and nowhere where that cannot work.

    Args:
        agent: who.
        prompts: one per row.
        prefixes: where they are kept.
        inbox: source -> message for its slot.
        later: for a call without messages, the prompts of the agent's next round, whose prefix it
            shares where the two begin with the same tokens.
    """
    cuts = [_cut(prompt) for prompt in later or prompts]
    if later is not None:
        same = [p.ids[:c] == q.ids[:c] for p, q, c in zip(prompts, later, cuts, strict=True)]
        longer = [len(p.ids) > c for p, c in zip(prompts, cuts, strict=True)]
        cuts = cuts if prefixes.agree(all(same) and all(longer)) else [0] * len(cuts)
    slots = {source: message.slot(agent) for source, message in inbox.items()}
    batch = PromptBatch(agent, prompts, slots, cuts, prefixes)
    # Texts differ in length: between a prefix and them, recurrent layers would read padding.
    has_text = any(slot.ids is not None for slot in slots.values())
    if not agent.attends_to_blocks or (is_recurrent(agent) and has_text):
        return batch.whole()
    groups = len(batch.parts(None))
    if groups > 1 and groups > len(prompts) / 2:
        warnings.warn(
            f"agent {agent.name}: after the frozen prefix, {len(prompts)} rows have {groups} "
            "different lengths, and its recurrent layers can read only equal ones together; its "
            "prompts are read whole in every round. Put the slot behind what differs in length.",
            PrefixReuseWarning,
            stacklevel=2,
        )
        return batch.whole()
    return batch


def _cut(prompt: EncodedPrompt) -> int:
    """Tokens before the first slot; one token is always left to read."""
    return min(prompt.slots[0][1], len(prompt.ids) - 1) if prompt.slots else 0
