"""The latent rollout: an agent that thinks in vectors instead of tokens (paper Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.engine.gradient import FULL, Gradient
from rmas_train.engine.kv_cache import Prefix, new_cache
from rmas_train.engine.sequences import Batch


def rollout(
    agent: Agent,
    inner: Callable[[Tensor], Tensor],
    batch: Batch,
    latent_length: int,
    prefix: Prefix | None = None,
    gradient: Gradient = FULL,
    fast: bool = False,
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
        gradient: ``full``, ``window`` or ``first_step``.
        fast: where no graph is asked for, in one buffer of keys and values; equal to rounding.

    Returns:
        hidden h and latents z, float32, (batch, latent, d) each.
    """
    if latent_length == 0:
        nothing = at_least_float32(batch.embeds[:, :0])
        return nothing, nothing
    room = latent_length - 1 if fast and not torch.is_grad_enabled() else None
    cache = new_cache(agent, prefix, room)
    hidden, latents = [], []
    for step in range(latent_length):
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient.keeps_graph(step)):
            h_BD = at_least_float32(cache.read(batch)[:, -1])
            z_BD = inner(h_BD)
        hidden.append(h_BD)
        latents.append(z_BD)
        if gradient.ends_window(step):
            cache.cut()
            z_BD = z_BD.detach()
        if step + 1 < latent_length:
            batch = batch.next(z_BD.to(agent.dtype))
    return torch.stack(hidden, dim=1), torch.stack(latents, dim=1)


def reread(
    agent: Agent,
    inner: Callable[[Tensor], Tensor],
    batch: Batch,
    latents: Tensor,
    prefix: Prefix | None = None,
) -> tuple[Tensor, Tensor]:
    """The rollout's states and latents again, in one forward over given latents (batch, M, d)."""
    latent_length = latents.shape[1]
    following = batch.extend(latents[:, :-1].to(agent.dtype))
    hidden_BLD = new_cache(agent, prefix).read(following)
    hidden_BMD = at_least_float32(hidden_BLD[:, -latent_length:])
    return hidden_BMD, inner(hidden_BMD)


def read_text(
    agent: Agent,
    inner: Callable[[Tensor], Tensor],
    batch: Batch,
    text_length: int,
    width: int,
    prefix: Prefix | None = None,
) -> tuple[Tensor, Tensor]:
    """States and latents of a given text in place of a rollout's (the release's training).

    Position k holds the state *of* token k, where a rollout's holds the state that predicts it.

    Args:
        agent: frozen.
        inner: its inner link.
        batch: prompts with their texts as endings, padded at the right.
        text_length: of the longest one in the batch.
        width: length of the result; what lies beyond a row's text means nothing.
        prefix: the prompt's beginning, read before.
    """
    hidden_BMD = at_least_float32(new_cache(agent, prefix).read(batch)[:, -text_length:])
    hidden_BMD = F.pad(hidden_BMD, [0, 0, 0, width - text_length])
    return hidden_BMD, inner(hidden_BMD)


def at_least_float32(x: Tensor) -> Tensor:
    """Links and losses compute in float32, or in float64 where an agent does (numerics tests)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
