"""Activation checkpointing of one agent call that keeps nothing of the call's graph.

``torch.utils.checkpoint`` (non-reentrant) drops the saved tensors but keeps every autograd node: a
few megabytes per call on the CPU, some thousand nodes for each of many small latent steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def recompute(
    run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """``run(*inputs)``, run again in backward.

    Args:
        run: pure: same inputs, same outputs; draws nothing, changes nothing.
        inputs: what it is given.
        parameters: leaves that it uses besides; all that should get a gradient.
    """
    outputs: tuple[Tensor, ...] = _Recompute.apply(run, len(inputs), *inputs, *parameters)
    return outputs


class _Recompute(torch.autograd.Function):
    """Inputs and parameters are arguments, so that DDP sees which parameters are used."""

    @staticmethod
    def forward(ctx: Any, run: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # hidden states and latents rarely need a gradient
        ctx.run, ctx.parameters = run, tensors[count:]
        ctx.save_for_backward(*tensors[:count])
        outputs: tuple[Tensor, ...] = run(*tensors[:count])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors]
        with torch.enable_grad():
            outputs = ctx.run(*inputs)
        pairs = wanted_pairs(outputs, grads)
        leaves = [*inputs, *ctx.parameters]
        wanted = [x for x in leaves if x.requires_grad]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
        )
        return None, None, *(next(found) if x.requires_grad else None for x in leaves)


def wanted_pairs(
    outputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> list[tuple[Tensor, Tensor]]:
    """Outputs that have a graph and were given a gradient, with it."""
    pairs = zip(outputs, grads, strict=True)
    return [(y, g) for y, g in pairs if y.requires_grad and g is not None]
