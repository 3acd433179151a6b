"""The latent rollout: an agent that thinks in vectors instead of tokens (paper Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rmas_train.agents.agent import Agent
from rmas_train.engine.inputs import Batch
from rmas_train.engine.kv_cache import Prefix, new_cache
from rmas_train.engine.recompute import wanted_pairs


@dataclass(frozen=True)
class Gradient:
    """Backward through one rollout.

    - ``full``: exact.
    - ``window``: the latent steps are cut into windows of ``steps``. Dropped: all that goes from a
      step into an earlier window, that is chains through its latents, and in deeper layers the
      paths to x through the keys and values of its positions. Kept: chains within a window, and
      each step's own attention to x. Recurrent states are not cut, as they hold x too.
    - ``first_step``: dropped: everything of z_2, z_3, ... Kept: the terms of z_1 (a fork of the
      release trained so).
    - ``parallel``: a rollout without a graph, whose vectors go forward; in backward one forward
      over all latent positions at once and ``steps`` vector-Jacobian products, the last one to slot
      and parameters counted. Dropped: chains of ``steps`` or more latents. Exact from ``steps`` =
      latent length on, as h_t depends on earlier latents only. Recomputes, so that it keeps
      messages only, like checkpointing.

    Attributes:
        mode: one of ``config.GRADIENTS``.
        steps: k of ``window`` and ``parallel``, 1 or more.
    """

    mode: str = "full"
    steps: int = 1

    def ends_window(self, step: int) -> bool:
        """Whether nothing goes back from later steps to this one (from 0) and those before."""
        return self.mode == "window" and (step + 1) % self.steps == 0

    @property
    def links_latents(self) -> bool:
        """Whether anything goes back from one latent step to an earlier one."""
        return self.mode == "full" or (self.mode != "first_step" and self.steps > 1)

    def keeps_graph(self, step: int) -> bool:
        return self.mode != "first_step" or step == 0


FULL = Gradient()
Outputs = tuple[Tensor, ...]


def parallel(
    run: Callable[..., Outputs],
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    sweeps: int,
) -> Outputs:
    """``run(*inputs)``'s outputs, with the gradient of ``Gradient``'s mode ``parallel``.

    Args:
        run: inputs -> outputs, of which the second is the latents (B, M, D), step by step; with
            ``again`` (B, M, D) all positions at once over these latents, which gives the same to
            rounding.
        inputs: what it is given.
        parameters: leaves that it uses besides; all that should get a gradient.
        sweeps: number of vector-Jacobian products, 1 or more.
    """
    outputs: Outputs = _Parallel.apply(run, sweeps, len(inputs), *inputs, *parameters)
    return outputs


class _Parallel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Any, sweeps: int, count: int, *tensors: Tensor) -> Outputs:
        ctx.set_materialize_grads(False)  # hidden states and latents rarely need a gradient
        outputs: Outputs = run(*tensors[:count])
        latents = outputs[1]
        ctx.run, ctx.parameters = run, tensors[count:]
        ctx.sweeps = min(sweeps, latents.shape[1])
        ctx.save_for_backward(latents, *tensors[:count])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved_latents, *saved_inputs = ctx.saved_tensors
        latents_BMD = saved_latents.detach().requires_grad_()
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in saved_inputs]
        with torch.enable_grad():
            outputs = ctx.run(*inputs, again=latents_BMD)
        again_BMD = outputs[1]
        pairs = wanted_pairs(outputs, grads)
        ends, starts = [y for y, _ in pairs], [g for _, g in pairs]
        for _ in range(ctx.sweeps - 1):
            (back_BMD,) = torch.autograd.grad(
                ends, latents_BMD, starts, retain_graph=True, materialize_grads=True
            )
            ends, starts = [y for y, _ in pairs] + [again_BMD], [g for _, g in pairs] + [back_BMD]
        leaves = [*inputs, *ctx.parameters]
        wanted = [x for x in leaves if x.requires_grad]
        found = iter(torch.autograd.grad(ends, wanted, starts, allow_unused=True))
        return None, None, None, *(next(found) if x.requires_grad else None for x in leaves)


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
