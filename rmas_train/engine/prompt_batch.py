"""The prompts of one agent call: messages in their slots, and frozen prefixes before them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt
from rmas_train.engine.kv_cache import Prefix, is_recurrent
from rmas_train.engine.message import Message
from rmas_train.engine.prefix import UnrollPrefixes
from rmas_train.engine.sequences import Batch, Slot, embed_prompts
from rmas_train.errors import PrefixReuseWarning

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
