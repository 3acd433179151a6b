"""The latent rollout: an agent that thinks in vectors instead of tokens (paper Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rmas_train.agents.agent import Agent
from rmas_train.agents.sequences import positions


def rollout(
    agent: Agent,
    inner: Callable[[Tensor], Tensor],
    embeds: Tensor,
    mask: Tensor,
    latent_length: int,
) -> tuple[Tensor, Tensor]:
    """``latent_length`` latent steps after a prompt; differentiable with respect to all inputs.

    The first hidden state is that of the last prompt position; z_t = inner(h_t) is the next input
    embedding; the last z is sent but never read by the agent itself.

    Args:
        agent: frozen.
        inner: its inner link, (batch, d) -> (batch, d), float32.
        embeds: prompt (batch, length, d), padded at the left only.
        mask: (batch, length), 0 on padding.
        latent_length: number of latent steps, 0 or more.

    Returns:
        hidden h and latents z, float32, (batch, latent, d) each.
    """
    if latent_length == 0:
        empty = embeds.new_zeros(
            embeds.shape[0], 0, agent.width, dtype=at_least_float32(embeds[:0]).dtype
        )
        return empty, empty
    cache = new_cache(agent)
    hidden, latents = [], []
    step_BLD = embeds
    for step in range(latent_length):
        h_BD = at_least_float32(forward_hidden(agent, step_BLD, mask, cache)[:, -1])
        z_BD = inner(h_BD)
        hidden.append(h_BD)
        latents.append(z_BD)
        if step + 1 < latent_length:
            step_BLD = z_BD.unsqueeze(1).to(agent.dtype)
            mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
    return torch.stack(hidden, dim=1), torch.stack(latents, dim=1)


def forward_hidden(agent: Agent, embeds: Tensor, mask: Tensor, cache: Any | None = None) -> Tensor:
    """Last hidden states after the final norm, (batch, length of embeds, d), without logits."""
    out = agent.model.base_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions(mask)[:, -embeds.shape[1] :],
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return out.last_hidden_state


def at_least_float32(x: Tensor) -> Tensor:
    """Links and losses compute in float32, or in float64 where an agent does (numerics tests)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def new_cache(agent: Agent) -> DynamicCache:
    return DynamicCache(config=agent.model.config)


def answer_logits(agent: Agent, embeds: Tensor, mask: Tensor, num_positions: int) -> Tensor:
    """Logits at the last ``num_positions`` positions only, (batch, num_positions, vocabulary)."""
    out = agent.model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
        logits_to_keep=num_positions,
    )
    return out.logits
