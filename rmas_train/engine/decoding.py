"""How a text is written: the likeliest token, or one drawn by random numbers of the row's own.

The numbers of a row depend on its seed alone, neither on the rows beside it nor on the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoding:
    """The rule by which tokens are chosen.

    Attributes:
        method: ``plain``: our loop, on prefixes; ``static``: the library's, with a static cache
            whose step it compiles on a GPU, the likeliest token only.
        temperature: divides the logits; 0: the likeliest token.
        top_k: only so many of the likeliest tokens can be drawn; None: all.
        top_p: of these, only the likeliest that together have this probability (Holtzman and
            others 2020).
        seed: root of the rows' seeds.
    """

    method: str = "plain"
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def chooser(self, seeds: Sequence[int]) -> Chooser:
        """For rows with these seeds; the likeliest token needs none."""
        return Chooser(self, [Random(seed) for seed in seeds] if self.temperature else None)


@dataclass(frozen=True)
class Chooser:
    """Chooses tokens for the rows of a batch; what it draws goes on from text to text.

    Attributes:
        decoding: the rule.
        draws: random numbers of each row; None: the likeliest token.
    """

    decoding: Decoding = Decoding()
    draws: Sequence[Random] | None = None

    def rows(self, index: Sequence[int]) -> Chooser:
        """The same for these rows of the batch."""
        return Chooser(self.decoding, self.draws and [self.draws[i] for i in index])

    def choose(self, logits_BV: Tensor, rows: Sequence[int]) -> Tensor:
        """The next token of each row, (B,).

        Args:
            logits_BV: of the next token.
            rows: which row of the batch each line is of.
        """
        if self.draws is None:
            return logits_BV.argmax(-1)
        numbers = torch.tensor([self.draws[i].random() for i in rows], dtype=torch.float64)
        return draw(logits_BV, numbers.to(logits_BV.device), self.decoding)


def draw(logits_BV: Tensor, numbers_B: Tensor, decoding: Decoding) -> Tensor:
    """Tokens at these quantiles of the distribution, whose tokens stand from likely to unlikely.

    Args:
        logits_BV: not yet divided by the temperature, which is above 0.
        numbers_B: from 0 to 1, without 1; float64.
        decoding: temperature, top-k, then top-p.
    """
    logits_BV = logits_BV.double() / decoding.temperature
    count = min(decoding.top_k or logits_BV.shape[-1], logits_BV.shape[-1])
    if count < logits_BV.shape[-1]:
        likely_BK, tokens_BK = logits_BV.topk(count)
    else:
        likely_BK, tokens_BK = logits_BV.sort(dim=-1, descending=True, stable=True)
    p_BK = likely_BK.softmax(-1)
    up_to_BK = p_BK.cumsum(-1)
    kept_BK = up_to_BK - p_BK < decoding.top_p  # the first one always
    mass_B1 = (p_BK * kept_BK).sum(-1, keepdim=True)
    place_B = (up_to_BK <= numbers_B[:, None] * mass_B1).sum(-1)
    last_B = kept_BK.sum(-1) - 1  # rounding may put the quantile behind the last one
    return tokens_BK.gather(-1, torch.minimum(place_B, last_B)[:, None])[:, 0]


GREEDY = Chooser()
