"""Batches of input embeddings: prompts with their slots filled, padded at the far left only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.prompts import EncodedPrompt


def fill_text(prompt: EncodedPrompt, texts: Mapping[str, list[int]]) -> list[int]:
    """Token ids of a prompt whose slots hold text (text recursion, inner stage)."""
    ids = list(prompt.ids)
    for source, position in reversed(prompt.slots):
        ids[position:position] = texts.get(source, [])
    return ids


def embed_batch(
    agent: Agent,
    prompts: Sequence[EncodedPrompt],
    messages: Mapping[str, Tensor],
    endings: Sequence[list[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Input embeddings of a batch, left-padded.

    Args:
        agent: whose embeddings are used.
        prompts: one per row, all with the same slots.
        messages: source -> (batch, latent, d); a slot without a message stays empty.
        endings: token ids after each prompt (a teacher-forced answer), or None.

    Returns:
        embeds (batch, length, d) in the agent's dtype, mask (batch, length) with 0 on padding.
    """
    lengths = {source: message.shape[1] for source, message in messages.items()}
    rows = []
    for i, prompt in enumerate(prompts):
        ids = list(prompt.ids)
        for source, position in reversed(prompt.slots):
            ids[position:position] = [_marker(messages, source)] * lengths.get(source, 0)
        rows.append(ids + (endings[i] if endings else []))
    ids_BL, mask_BL = pad_left(rows, agent.pad_id)
    ids_BL, mask_BL = ids_BL.to(agent.device), mask_BL.to(agent.device)
    embeds_BLD = agent.embed(ids_BL.clamp_min(0))
    for source, message_BMD in messages.items():
        here_BL1 = (ids_BL == _marker(messages, source)).unsqueeze(-1)
        # Row by row in order, and each row has exactly M marks: the order of message_BMD.
        embeds_BLD = embeds_BLD.masked_scatter(here_BL1, message_BMD.to(embeds_BLD.dtype))
    return embeds_BLD, mask_BL


def pad_left(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, (batch, length) each."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def positions(mask: Tensor) -> Tensor:
    """Position ids that count real tokens only, (batch, length)."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


def _marker(messages: Mapping[str, Tensor], source: str) -> int:
    """A negative id for each slot; no vocabulary has one."""
    return -1 - list(messages).index(source) if source in messages else 0
