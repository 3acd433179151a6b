"""What the outer stage can learn from beside the answer: its own deeper rounds, and text.

Tensor names: N positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.channels import TextChannel
from rmas_train.engine.answer import divergence
from rmas_train.engine.inputs import LatentMessage, take_first
from rmas_train.recursion import Call, Recursion, Team

Ids = list[list[int]]


def own_answer_loss(
    call: Call, deeper: Call, answers: Sequence[list[int]], row_means: bool = False
) -> Tensor:
    """Summed divergence of a decoder's distribution at answer positions from a deeper unroll's.

    The links are the same in both, so the deep system teaches its own shallow one; no gradient goes
    through ``deeper``.
    """
    with torch.no_grad():
        teacher_ND = torch.cat(deeper.answer_states(answers))
    hidden_ND = torch.cat(call.answer_states(answers))
    return divergence(call.prompts.agent, hidden_ND, teacher_ND, answers if row_means else None)


class TextTeacher:
    """Text recursion on the same rows; its messages are targets for the latent ones.

    Each latent message's vectors are compared with the embeddings of the first tokens that its
    target would read there in text. The loss stays between one link and one text: it does not go
    through later agents, but for what it shares with the answer's loss.

    Args:
        team: agents, prompts, topology.
        channel: of the text recursion.
    """

    def __init__(self, team: Team, channel: TextChannel) -> None:
        self._team, self._recursion = team, Recursion(team, channel)

    @torch.no_grad()
    def read(self, rows: Sequence[Mapping[str, Any]], rounds: int) -> dict[tuple[int, str], Ids]:
        """(round, edge key) -> token ids that the target reads in its slot, per row."""
        found = {}
        for call in self._recursion.unroll(rows, rounds):
            for edge in call.edges:
                slot = call.messages[edge.key].slot(self._team.agents[edge.target])
                found[call.round, edge.key] = slot.ids or [[] for _ in rows]
        return found

    def loss(self, call: Call, texts: Mapping[tuple[int, str], Ids]) -> Tensor:
        """Sum over rows and edges of the mean of 1 - cosine over a message's vectors."""
        losses = []
        for edge in call.edges:
            message = call.messages[edge.key]
            assert isinstance(message, LatentMessage)
            agent = self._team.agents[edge.target]
            losses.append(message_loss(message.vectors, texts[call.round, edge.key], agent.embed))
        return torch.stack(losses).sum()


def message_loss(vectors_BMD: Tensor, texts: Ids, embed: Any) -> Tensor:
    """Sum over rows of the mean of 1 - cos(vector k, embedding of token k); rows without: 0.

    Args:
        vectors_BMD: a message.
        texts: token ids per row; those beyond M are not read, and vectors beyond a text are free.
        embed: ids (N,) -> embeddings (N, D).
    """
    counts = [min(len(ids), vectors_BMD.shape[1]) for ids in texts]
    if not any(counts):
        return vectors_BMD.sum() * 0
    ids = [i for row, count in zip(texts, counts, strict=True) for i in row[:count]]
    device = vectors_BMD.device
    with torch.no_grad():
        wanted_ND = embed(torch.tensor(ids, device=device)).to(vectors_BMD)
    cosine_N = F.cosine_similarity(take_first(vectors_BMD, counts), wanted_ND, dim=-1)
    shares = [1 / count for count in counts for _ in range(count)]
    return ((1 - cosine_N) * torch.tensor(shares, dtype=cosine_N.dtype, device=device)).sum()
