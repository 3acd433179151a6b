"""AdamW over links: one parameter group per link, clipped or left alone as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from rmas_train.config import TrainingConfig


class LinkAdamW(torch.optim.AdamW):
    """AdamW that scales each link's gradient, and skips a link that has none.

    Both happen inside ``step``, so that they are the same where a back end updates flat parts of
    the links instead of their parameters.

    Args:
        links: name -> module; one parameter group each.
        config: learning rate, betas, epsilon, weight decay.
    """

    def __init__(self, links: Mapping[str, nn.Module], config: TrainingConfig) -> None:
        groups = [
            {"params": list(link.parameters()), "name": name, "factor": None}
            for name, link in links.items()
        ]
        super().__init__(
            groups,
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    def set_factors(self, factors: Mapping[str, float | None]) -> None:
        """What the next step multiplies each link's gradient by; None: no gradient, no update."""
        for group in self.param_groups:
            group["factor"] = factors[group["name"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if group["factor"] is None:
                    p.grad = None
                elif p.grad is not None and group["factor"] != 1:
                    p.grad.mul_(group["factor"])
        return super().step(closure)


def clip_factors(norms: Mapping[str, float], largest: float, scope: str) -> dict[str, float | None]:
    """Factors that bring gradients down to norm ``largest``, per link or as one vector.

    None for a link without gradient; ``largest`` 0 clips nothing.
    """
    total = sum(n**2 for n in norms.values()) ** 0.5
    factors: dict[str, float | None] = {}
    for name, norm in norms.items():
        size = norm if scope == "link" else total
        clip = largest / size if largest and size > largest else 1.0
        factors[name] = clip if norm else None
    return factors
