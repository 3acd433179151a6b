"""How the gradient goes back through a rollout: exactly, or with terms dropped to save time.

With z_t the latents, x the prompt with its slot, and h_t = f(x, z_1..z_{t-1}), the exact gradient
has a direct term (h_t through x alone) and terms along chains h_t <- z_s <- ... <- x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        ctx.set_materialize_grads(False)  # hidden states and latents are seldom asked for one
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
