"""How probable given continuations are after the decoder's prompts.

Tensor names: B rows, L positions, A answer tokens of one row, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rmas_train.agents.agent import Agent
from rmas_train.engine.inputs import Batch
from rmas_train.engine.kv_cache import Prefix, new_cache
from rmas_train.engine.rollout import at_least_float32


@dataclass(frozen=True)
class Score:
    """Of one continuation.

    Attributes:
        log_probability: natural logarithm, summed over its tokens.
        is_greedy: each of its tokens is the most probable one at its place.
    """

    log_probability: float
    is_greedy: bool


@torch.no_grad()
def score_endings(
    agent: Agent, batch: Batch, prefix: Prefix | None, endings: Sequence[list[int]]
) -> list[Score]:
    """Score what ends each row of a batch.

    Args:
        agent: the decoder.
        batch: what it reads, endings included, padded at the right.
        prefix: what it has read before.
        endings: token ids, per row; one or more each.
    """
    longest = max(map(len, endings))
    # The state before each token of an ending; the last token predicts nothing.
    hidden_BAD = new_cache(agent, prefix).read(batch)[:, -longest - 1 : -1]
    scores = []
    for hidden_AD, ids in zip(hidden_BAD, endings, strict=True):
        logits_AV = at_least_float32(agent.logits(hidden_AD[: len(ids)]))
        ids_A = torch.tensor(ids, device=logits_AV.device)
        own_A = logits_AV.log_softmax(-1).gather(-1, ids_A[:, None])[:, 0]
        is_greedy = bool((logits_AV.argmax(-1) == ids_A).all())
        scores.append(Score(float(own_A.sum()), is_greedy))
    return scores
