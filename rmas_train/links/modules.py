"""The link itself: one module for inner and outer links, in five variants.

Released inner link (method of RecursiveMAS, its Eq. 3 with LayerNorms as in the released code):
    LN_post(h + W2 gelu(W1 LN_pre(h)))
Released outer link (Eq. 4): LN_post(W3 h + W2 gelu(W1 LN_pre(h))), middle width 2 * d_target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-5
# In which links are found in files, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Link(nn.Module):
    """A map from d_source to d_target on the last axis; float32 whatever the agents' dtype.

    Args:
        d_source: width of what goes in.
        d_target: width of what comes out.
        outer: an outer link, whose residual path is a linear map W3 (``residual_proj``); an inner
            link's residual path is the identity.
        variant: ``ln_res_2layer``, ``linear``, ``linear_res``, ``2layer`` or ``res_2layer``.
        norm: ``match_embedding``: the output has the target's embedding norm; ``layernorm`` and
            ``none``: as the variant gives it.
        target_norm: norm of the target's embeddings; used by ``match_embedding``.
    """

    scale: Tensor

    def __init__(
        self,
        d_source: int,
        d_target: int,
        *,
        outer: bool,
        variant: str = "ln_res_2layer",
        norm: str = "match_embedding",
        target_norm: float = 1.0,
    ) -> None:
        super().__init__()
        self.d_source, self.d_target, self.outer = d_source, d_target, outer
        self.variant, self.norm = variant, norm
        has_norms, has_residual = variant == "ln_res_2layer", "res" in variant
        if "2layer" in variant:
            middle = 2 * d_target if outer and has_norms else d_target
            self.proj1 = nn.Linear(d_source, middle)
            self.proj2: nn.Linear | None = nn.Linear(middle, d_target)
        else:
            self.proj1 = nn.Linear(d_source, d_target)
            self.proj2 = None
        self.residual_proj = nn.Linear(d_source, d_target) if outer and has_residual else None
        self.has_residual = has_residual
        self.pre_ln = nn.LayerNorm(d_source, eps=NORM_EPS) if has_norms else None
        self.post_ln = nn.LayerNorm(d_target, eps=NORM_EPS) if has_norms else None
        scale = target_norm / math.sqrt(d_target) if norm == "match_embedding" else 1.0
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, x: Tensor) -> Tensor:
        """(..., d_source) of any dtype -> (..., d_target) in the link's own dtype."""
        x = x.to(self.proj1.weight.dtype)
        return self._normalise(self.body(x)) * self.scale

    def body(self, x: Tensor) -> Tensor:
        """Residual path plus branch, before the closing norm."""
        branch = self.proj1(self.pre_ln(x) if self.pre_ln is not None else x)
        if self.proj2 is not None:
            branch = self.proj2(F.gelu(branch))
        if not self.has_residual:
            return branch
        return branch + (self.residual_proj(x) if self.residual_proj is not None else x)

    def _normalise(self, y: Tensor) -> Tensor:
        if self.post_ln is not None:
            return self.post_ln(y)
        if self.norm == "match_embedding":  # no closing LayerNorm: RMS per vector, no parameters
            return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + NORM_EPS**2)
        return y

    @property
    def main_path(self) -> nn.Linear | None:
        """The linear map that an aligned start fills: W3, or the only layer; None if inner."""
        if not self.outer:
            return None
        return self.residual_proj if self.residual_proj is not None else self.proj1

    @property
    def last_layer(self) -> nn.Linear:
        """The layer whose zero silences the branch."""
        return self.proj2 if self.proj2 is not None else self.proj1
