"""What the data use of each agent's vocabulary: token ids, embedding norm, typical states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.engine.sequences import embed_ids, pad_left, read_whole


def seen_ids(sequences: Sequence[list[int]]) -> set[int]:
    """Token ids that occur in the data."""
    return {i for ids in sequences for i in ids}


@torch.no_grad()
def target_norm(agent: Agent, seen: set[int]) -> float:
    """Median norm, over seen token ids, of what the embedding module returns."""
    ids = torch.tensor(sorted(seen), device=agent.device)
    return float(agent.embed(ids).float().norm(dim=-1).median())


@torch.no_grad()
def token_embeddings(agent: Agent, ids: Sequence[int]) -> Tensor:
    """(len(ids), d), float32 on the CPU."""
    return agent.embed(torch.tensor(list(ids), device=agent.device)).float().cpu()


@torch.no_grad()
def states_before(
    agent: Agent, sequences: Sequence[list[int]], batch: int = 64
) -> dict[int, Tensor]:
    """Token id -> mean hidden state (d,) of the positions that the token follows in the data."""
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    for begin in range(0, len(sequences), batch):
        part = sequences[begin : begin + batch]
        ids_BL, real_BL = pad_left(part, agent.pad_id)
        hidden_BLD = read_whole(agent, embed_ids(agent, part))[:, :-1].float().cpu()
        following_BL = torch.where(real_BL[:, :-1] & real_BL[:, 1:], ids_BL[:, 1:], -1)
        for token in following_BL.unique().tolist():
            if token >= 0:
                here = hidden_BLD[following_BL == token]
                sums[token] = sums.get(token, torch.zeros(())) + here.sum(0)
                counts[token] = counts.get(token, 0) + len(here)
    return {token: sums[token] / counts[token] for token in sums}
