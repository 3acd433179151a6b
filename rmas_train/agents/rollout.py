"""The latent rollout: an agent that thinks in vectors instead of tokens (paper Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rmas_train.agents.agent import Agent
from rmas_train.agents.memory import Prefix, new_memory
from rmas_train.agents.sequences import Batch


def rollout(
    agent: Agent,
    inner: Callable[[Tensor], Tensor],
    batch: Batch,
    latent_length: int,
    prefix: Prefix | None = None,
) -> tuple[Tensor, Tensor]:
    """``latent_length`` latent steps after a prompt; differentiable with respect to all inputs.

    The first hidden state is that of the last prompt position; z_t = inner(h_t) is the next input
    embedding; the last z is sent but never read by the agent itself.

    Args:
        agent: frozen.
        inner: its inner link, (batch, d) -> (batch, d), float32.
        batch: the prompt, or what follows ``prefix`` in it; padded at the left only.
        latent_length: number of latent steps, 0 or more.
        prefix: the prompt's beginning, read before.

    Returns:
        hidden h and latents z, float32, (batch, latent, d) each.
    """
    if latent_length == 0:
        nothing = at_least_float32(batch.embeds[:, :0])
        return nothing, nothing
    memory = new_memory(agent, prefix)
    hidden, latents = [], []
    for step in range(latent_length):
        h_BD = at_least_float32(memory.read(batch)[:, -1])
        z_BD = inner(h_BD)
        hidden.append(h_BD)
        latents.append(z_BD)
        if step + 1 < latent_length:
            batch = batch.next(z_BD.to(agent.dtype))
    return torch.stack(hidden, dim=1), torch.stack(latents, dim=1)


def at_least_float32(x: Tensor) -> Tensor:
    """Links and losses compute in float32, or in float64 where an agent does (numerics tests)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
