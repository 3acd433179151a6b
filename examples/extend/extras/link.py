"""A link variant: a low-rank map beside the released branch's place."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rmas_train.links.modules import Link
from rmas_train.registry import LINK_VARIANTS

RANK = 16


@LINK_VARIANTS.register("low_rank")
class LowRankLink(Link):
    """x -> up(down(x)) + W3 x; W3 takes the aligned start."""

    def __init__(self, d_source: int, d_target: int, **options: Any) -> None:
        super().__init__(d_source, d_target, **options)
        self.down = nn.Linear(d_source, RANK)
        self.up = nn.Linear(RANK, d_target)
        self.residual_proj = nn.Linear(d_source, d_target)

    def body(self, x: Tensor) -> Tensor:
        return self.residual_proj(x) + self.up(self.down(x))

    @property
    def main_path(self) -> nn.Linear | None:
        return self.residual_proj if self.outer else None

    def silence_branch(self) -> None:
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
