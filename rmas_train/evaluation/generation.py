"""Text from an agent, by the library's own ``generate`` (greedy, KV cache)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent


@dataclass(frozen=True)
class Text:
    """Generated text and its number of tokens, end-of-text token included."""

    text: str
    tokens: int


@torch.no_grad()
def generate(agent: Agent, embeds: Tensor, mask: Tensor, max_new_tokens: int) -> list[Text]:
    """Continue a batch of input embeddings.

    Args:
        agent: who writes.
        embeds: (batch, length, d), left-padded.
        mask: (batch, length).
        max_new_tokens: where to stop at the latest.
    """
    out_BL = agent.model.generate(
        inputs_embeds=embeds,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=agent.end_id,
        pad_token_id=agent.pad_id,
    )
    texts = []
    for row in out_BL.tolist():
        tokens = row[: row.index(agent.end_id) + 1] if agent.end_id in row else row
        text = agent.tokenizer.decode(tokens, skip_special_tokens=True)
        texts.append(Text(text, len(tokens)))
    return texts
