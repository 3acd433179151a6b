"""One agent's turn in an unroll: its prompts, the messages in their slots, its frozen prefixes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt
from rmas_train.engine.kv_cache import Prefix, is_recurrent
from rmas_train.engine.prefix import Prefixes
from rmas_train.engine.sequences import Batch, embed_ids, embed_prompts, fill_text
from rmas_train.errors import PrefixReuseWarning

Opened = tuple[Batch, Prefix | None]


@dataclass(frozen=True)
class PromptBatch:
    """What an agent reads before it thinks or answers.

    Attributes:
        agent: who.
        prompts: one per row, with open slots.
        cuts: per row, how many tokens at the beginning are a frozen prefix.
        prefixes: where these are kept.
        lengths: source -> per row, vectors of its message that count; default: all.
    """

    agent: Agent
    prompts: Sequence[EncodedPrompt]
    cuts: Sequence[int]
    prefixes: Prefixes
    lengths: Mapping[str, Sequence[int]] = field(default_factory=dict)

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

    def open(
        self,
        part: Sequence[int],
        inbox: Mapping[str, Tensor],
        endings: Sequence[list[int]] | None = None,
    ) -> Opened:
        """What the agent reads now, and what it has read before.

        Args:
            part: rows.
            inbox: source -> message (all rows, M, d).
            endings: token ids after each prompt of ``part``.
        """
        everything = len(part) == len(self.prompts)
        prompts = [self.prompts[i] for i in part]
        cuts = [self.cuts[i] for i in part]
        messages = inbox if everything else {source: m[list(part)] for source, m in inbox.items()}
        lengths = {source: [counts[i] for i in part] for source, counts in self.lengths.items()}
        batch = embed_prompts(self.agent, prompts, messages, endings, cuts, lengths)
        return batch, self._prefix(part)

    def open_text(self, part: Sequence[int], texts: Mapping[str, Sequence[list[int]]]) -> Opened:
        """The same with token ids in the slots, source -> per row (text recursion)."""
        rows = []
        for i in part:
            filled = fill_text(self.prompts[i], {source: ids[i] for source, ids in texts.items()})
            rows.append(filled[self.cuts[i] :])
        batch = embed_ids(self.agent, rows, skip=[self.cuts[i] for i in part])
        return batch, self._prefix(part)

    def _prefix(self, part: Sequence[int]) -> Prefix | None:
        ids = [self.prompts[i].ids[: self.cuts[i]] for i in part]
        return self.prefixes.get(self.agent, part, ids) if any(ids) else None

    def _by_length(self, part: list[int]) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for i in part:
            slots = sum(counts[i] for counts in self.lengths.values())
            groups.setdefault(len(self.prompts[i].ids) - self.cuts[i] + slots, []).append(i)
        return list(groups.values())


def make_prompt_batch(
    agent: Agent,
    prompts: Sequence[EncodedPrompt],
    prefixes: Prefixes,
    later: Sequence[EncodedPrompt] | None = None,
    lengths: Mapping[str, Sequence[int]] | None = None,
) -> PromptBatch:
    """A turn with its cuts: before the first slot, and nowhere where that cannot work.

    Args:
        agent: who.
        prompts: one per row.
        prefixes: where they are kept.
        later: for a turn without slots, the prompts of the agent's next round, whose prefix it
            shares where the two begin with the same tokens.
        lengths: see ``PromptBatch``.
    """
    cuts = [_cut(prompt) for prompt in later or prompts]
    if later is not None:
        same = [p.ids[:c] == q.ids[:c] for p, q, c in zip(prompts, later, cuts, strict=True)]
        longer = [len(p.ids) > c for p, c in zip(prompts, cuts, strict=True)]
        cuts = cuts if prefixes.agree(all(same) and all(longer)) else [0] * len(cuts)
    turn = PromptBatch(agent, prompts, cuts, prefixes, lengths or {})
    if not agent.attends_to_blocks:
        return turn.whole()
    groups = len(turn.parts(None))
    if groups > 1 and groups > len(prompts) / 2:
        warnings.warn(
            f"agent {agent.name}: after the frozen prefix, {len(prompts)} rows have {groups} "
            "different lengths, and its recurrent layers can read only equal ones together; its "
            "prompts are read whole in every round. Put the slot behind what differs in length.",
            PrefixReuseWarning,
            stacklevel=2,
        )
        return turn.whole()
    return turn


def _cut(prompt: EncodedPrompt) -> int:
    """Tokens before the first slot; one token is always left to read."""
    return min(prompt.slots[0][1], len(prompt.ids) - 1) if prompt.slots else 0
