"""The link itself: a small map between the vectors of frozen agents, in five variants.

Released inner link (method of RecursiveMAS, its Eq. 3 with LayerNorms as in the released code):
    LN_post(h + W2 gelu(W1 LN_pre(h)))
Released outer link (Eq. 4): LN_post(W3 h + W2 gelu(W1 LN_pre(h))), middle width 2 * d_target.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmas_train.errors import ConfigError, LinksError
from rmas_train.registry import LINK_VARIANTS

NORM_EPS = 1e-5
# In which links are found in files, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Link(nn.Module, ABC):
    """A map from d_source to d_target on the last axis; float32 whatever the agents' dtype.

    A variant says what ``body`` is, and which of its layers an aligned start can fill.

    Args:
        d_source: width of what goes in.
        d_target: width of what comes out.
        outer: an outer link, on an edge; else an inner link, inside an agent, d to d.
        norm: ``match_embedding``: the output has the target's embedding norm; ``layernorm`` and
            ``none``: as the variant gives it.
        target_norm: norm of the target's embeddings; used by ``match_embedding`` and read-outs.
        has_readout: an expected embedding (``links.readout``) stands in place of the residual path
            and of the closing LayerNorm.

    Attributes:
        variant: its name in configs and cards.
        bound_readout: hidden states -> expected embeddings. No module: nothing of an agent is
            among the link's parameters.
        pre_ln, post_ln: LayerNorm before the branch, and at the end; None where there is none.
    """

    scale: Tensor
    variant: str
    pre_ln: nn.LayerNorm | None
    post_ln: nn.LayerNorm | None

    def __init__(
        self,
        d_source: int,
        d_target: int,
        *,
        outer: bool,
        norm: str = "match_embedding",
        target_norm: float = 1.0,
        has_readout: bool = False,
    ) -> None:
        super().__init__()
        self.d_source, self.d_target, self.outer, self.norm = d_source, d_target, outer, norm
        self.has_readout = has_readout
        self.bound_readout: Callable[[Tensor], Tensor] | None = None
        self.pre_ln = self.post_ln = None
        is_scaled = has_readout or norm == "match_embedding"
        scale = target_norm / math.sqrt(d_target) if is_scaled else 1.0
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, x: Tensor) -> Tensor:
        """(..., d_source) of any dtype -> (..., d_target) in the link's own dtype."""
        x = x.to(self.scale.dtype)
        body = self.body(x)
        if self.has_readout:  # the branch is as loud as the target's embeddings, not as 1
            body = body + self.readout(x).to(body.dtype) / self.scale
        return self.finish(body)

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """Everything before the closing norm, (..., d_source) -> (..., d_target)."""

    def finish(self, y: Tensor) -> Tensor:
        """The closing norm and the scale, (..., d_target) -> the same."""
        if self.post_ln is not None:
            y = self.post_ln(y)
        elif self.norm == "match_embedding":  # no closing LayerNorm: RMS per vector, no parameters
            y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + NORM_EPS**2)
        return y * self.scale

    def readout(self, x: Tensor) -> Tensor:
        """What a vocabulary read-out makes of hidden states; bound once agents are there.

        Raises:
            LinksError: nothing is bound yet.
        """
        if self.bound_readout is None:
            raise LinksError(
                f"this link (links.readout, {self.d_source} to {self.d_target}) reads its agent's "
                "next-token distribution, so it needs the agents: load it with rmas_train.load."
            )
        return self.bound_readout(x)

    @property
    def main_path(self) -> nn.Linear | None:
        """The linear map that an aligned start of an outer link fills; None: there is none."""
        return None

    def residual(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """What the residual path makes of x; None where there is no branch beside one."""
        return None

    def silence_branch(self) -> None:
        """Leave the main path alone to speak; what else there is can still learn."""

    def start_inner(self) -> None:
        """An inner link starts as the (normalised) identity, and learns its cosine stage."""

    def ends(self) -> list[Link]:
        """The links that hold its parameters: itself, or the two ends in a shared space."""
        return [self]

    def fresh(self) -> Link:
        """A freshly drawn link of this shape and scale, without a read-out."""
        made = make_link(
            self.d_source, self.d_target, outer=self.outer, variant=self.variant, norm=self.norm
        )
        made.scale.copy_(self.scale)
        return made


class ResidualLink(Link):
    """One or two layers, with or without a residual path and LayerNorms: the five variants.

    Args:
        layers: 1, or 2 with a GELU between them.
        residual: a path beside the layers: the identity in an inner link, W3 (``residual_proj``) in
            an outer one.
        layernorms: one before the layers, one at the end; the middle of an outer link is then
            2 * d_target wide, else d_target.
        options: see ``Link``.
    """

    def __init__(
        self,
        d_source: int,
        d_target: int,
        *,
        layers: int,
        residual: bool,
        layernorms: bool,
        **options: Any,
    ) -> None:
        super().__init__(d_source, d_target, **options)
        if layers == 2:
            middle = 2 * d_target if self.outer and layernorms else d_target
            self.proj1 = nn.Linear(d_source, middle)
            self.proj2: nn.Linear | None = nn.Linear(middle, d_target)
        else:
            self.proj1 = nn.Linear(d_source, d_target)
            self.proj2 = None
        self.has_residual = residual and not self.has_readout
        has_map = self.outer and self.has_residual
        self.residual_proj = nn.Linear(d_source, d_target) if has_map else None
        self.pre_ln = nn.LayerNorm(d_source, eps=NORM_EPS) if layernorms else None
        has_post = layernorms and not self.has_readout
        self.post_ln = nn.LayerNorm(d_target, eps=NORM_EPS) if has_post else None

    def body(self, x: Tensor) -> Tensor:
        """Residual path plus branch."""
        branch = self.proj1(self.pre_ln(x) if self.pre_ln is not None else x)
        if self.proj2 is not None:
            branch = self.proj2(F.gelu(branch))
        if not self.has_residual:
            return branch
        return branch + (self.residual_proj(x) if self.residual_proj is not None else x)

    def residual(self, x: Tensor) -> Tensor | None:
        if not self.has_residual or self.proj2 is None:
            return None
        return self.residual_proj(x) if self.residual_proj is not None else x

    @property
    def main_path(self) -> nn.Linear | None:
        """W3, or the only layer."""
        if not self.outer or self.has_readout:
            return None
        return self.residual_proj if self.residual_proj is not None else self.proj1

    def silence_branch(self) -> None:
        """Zero last layer: the branch says nothing yet, but its hidden units differ and learn."""
        last = self.proj2 if self.proj2 is not None else self.proj1
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def start_inner(self) -> None:
        if self.has_residual or self.has_readout:
            self.silence_branch()
        elif self.proj2 is None:
            nn.init.eye_(self.proj1.weight)
            nn.init.zeros_(self.proj1.bias)


LN_RES_2LAYER = partial(ResidualLink, layers=2, residual=True, layernorms=True)
RES_2LAYER = partial(ResidualLink, layers=2, residual=True, layernorms=False)
TWO_LAYER = partial(ResidualLink, layers=2, residual=False, layernorms=False)
LINEAR_RES = partial(ResidualLink, layers=1, residual=True, layernorms=False)
LINEAR = partial(ResidualLink, layers=1, residual=False, layernorms=False)


def make_link(
    d_source: int, d_target: int, *, variant: str = "ln_res_2layer", **options: Any
) -> Link:
    """A freshly drawn link of a variant; ``options`` as of ``Link``.

    Raises:
        ConfigError: unknown variant, or ``norm=layernorm`` for one without a closing LayerNorm.
    """
    link: Link = LINK_VARIANTS.get(variant)(d_source, d_target, **options)
    link.variant = variant
    if link.has_readout and (link.post_ln is not None or link.main_path is not None):
        raise ConfigError(
            f"links.variant={variant} keeps a main path or a closing LayerNorm beside a read-out, "
            "which stands in their place; use links.readout=hidden."
        )
    if link.norm == "layernorm" and link.post_ln is None:
        raise ConfigError(
            f"links.norm=layernorm needs a closing LayerNorm, which links.variant={variant} has "
            "not; use links.norm=match_embedding or none."
        )
    return link
