"""The aligned start: links that map to the target's embeddings already before training.

An outer link's main path is the ridge regression from the source's to the target's embeddings of
the token strings that both share, or the identity where both are one model. The branch gets a zero
last layer. Then gain and bias of the closing LayerNorm are set per coordinate by least squares.

A real vocabulary shares about 100,000 strings with another, so everything is computed from moments
(sums over pairs), a block of pairs at a time, in float64.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from rmas_train.config import LinksConfig
from rmas_train.errors import LinksError, LowRankWarning
from rmas_train.links.link_set import LinkSet
from rmas_train.links.modules import Link

FOLDS = 5
ENOUGH = 10_000  # held-out pairs, after which no further fold is fitted
MIN_PAIRS = 8
BLOCK = 8192  # pairs at a time


@dataclass(frozen=True)
class Pairs:
    """Embeddings of shared token strings: inputs and targets of an outer link's regression.

    ``source`` (pairs, d_source) and ``target`` (pairs, d_target).
    """

    source: Tensor
    target: Tensor

    @cached_property
    def same(self) -> bool:
        """Whether both are of one model, loaded once or twice: the identity is the exact map."""
        x, y = self.source, self.target
        return x.dtype == y.dtype and torch.equal(x, y)

    def __len__(self) -> int:
        return len(self.source)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Source and target, ``BLOCK`` pairs at a time, in float32 at least."""
        for x, y in zip(self.source.split(BLOCK), self.target.split(BLOCK), strict=True):
            yield _at_least_float32(x), _at_least_float32(y)

    def take(self, index: Tensor) -> Pairs:
        return Pairs(self.source[index], self.target[index])


def together(pairs: Iterable[Pairs]) -> Pairs:
    """The pairs of several edges, for one link."""
    found = list(pairs)
    return Pairs(torch.cat([p.source for p in found]), torch.cat([p.target for p in found]))


@dataclass(frozen=True)
class Moments:
    """Sums over pairs, in float64: their number, x, y, x x^T and x y^T."""

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor

    @classmethod
    def of(cls, pairs: Pairs) -> Self:
        d, e = pairs.source.shape[1], pairs.target.shape[1]
        shapes = ((d,), (e,), (d, d), (d, e))
        sums = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        for block in pairs.blocks():
            x, y = (one.double() for one in block)
            for total, part in zip(sums, (x.sum(0), y.sum(0), x.T @ x, x.T @ y), strict=True):
                total += part
        return cls(len(pairs), *sums)

    def without(self, other: Moments) -> Moments:
        return Moments(
            self.count - other.count,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
        )


def ridge(pairs: Moments, strength: float) -> tuple[Tensor, Tensor]:
    """Weight (d_target, d_source) and bias (d_target) of least squares with an L2 penalty.

    The penalty is ``strength`` times the mean squared singular value of the centred source, so it
    does not depend on the scale of the embeddings. Computed in float64.
    """
    x_mean, y_mean = pairs.x / pairs.count, pairs.y / pairs.count
    gram = pairs.xx - pairs.count * torch.outer(x_mean, x_mean)
    cross = pairs.xy - pairs.count * torch.outer(x_mean, y_mean)
    width = len(x_mean)
    penalty = strength * gram.diagonal().sum() / min(pairs.count, width) + 1e-12
    weight = torch.linalg.solve(gram + penalty * torch.eye(width, dtype=gram.dtype), cross).T
    return weight, y_mean - weight @ x_mean


def align_outer(link: Link, pairs: Pairs, strength: float, moments: Moments | None = None) -> None:
    """Set an outer link to the closed-form solution, in place; ``moments``: those of the pairs."""
    main = link.main_path
    assert main is not None
    link.silence_branch()
    with torch.no_grad():
        if pairs.same:
            nn.init.eye_(main.weight)
            nn.init.zeros_(main.bias)
        else:
            weight, bias = ridge(moments or Moments.of(pairs), strength)
            main.weight.copy_(weight)
            main.bias.copy_(bias)
        if link.post_ln is not None:
            _fit_norm(link, pairs)


def held_out_cosine(
    pairs: Pairs, link: Link, strength: float, moments: Moments | None = None
) -> float:
    """Mean cosine of aligned output and target on shared tokens left out of the fit.

    Five folds, or as many of them as hold ``ENOUGH`` pairs. A fold's moments are those of all pairs
    minus those of its own.
    """
    moments = moments or Moments.of(pairs)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    total, count = 0.0, 0
    for fold in range(FOLDS):
        test = pairs.take(order[fold::FOLDS])
        left = torch.ones(len(pairs), dtype=torch.bool)
        left[order[fold::FOLDS]] = False
        trial = copy.deepcopy(link)
        rest = moments if pairs.same else moments.without(Moments.of(test))
        align_outer(trial, pairs.take(left.nonzero()[:, 0]), strength, rest)
        total, count = total + mean_cosine(trial, test) * len(test), count + len(test)
        if count >= ENOUGH:
            break
    return total / count


@torch.no_grad()
def mean_cosine(link: Link, pairs: Pairs) -> float:
    """Mean cosine of a silent-branch link's output and its target."""
    sums = [
        torch.cosine_similarity(_main_output(link, x), y, dim=-1).double().sum()
        for x, y in pairs.blocks()
    ]
    return (torch.stack(sums).sum() / len(pairs)).item()


def align_links(
    links: LinkSet, pairs: Mapping[str, Pairs], config: LinksConfig, seed: int
) -> dict[str, dict[str, float]]:
    """Aligned start of all links, in place, with ``start_noise`` if it is set.

    Returns:
        per edge, or per end in a shared space: number of shared tokens, cosine on them and on
        held-out ones (before noise).
    """
    report = {}
    for name, link in links.links().items():
        if name.startswith("inner."):
            link.start_inner()
    outer = {n.removeprefix("outer."): k for n, k in links.parts().items() if k.outer}
    if config.shared:
        key, link = next(iter(outer.items()))
        shared = _align("of all", link, together(pairs.values()), config)
        if config.start_noise:
            add_noise(link, config.start_noise, seed)
        return dict.fromkeys(outer, shared)
    for i, (key, link) in enumerate(outer.items()):
        report[key] = _align(key, link, pairs[key], config)
        if config.start_noise:
            add_noise(link, config.start_noise, seed + i)
    return report


def silence_branches(links: LinkSet) -> None:
    """The start of a vocabulary read-out: thoughts and messages are expected embeddings alone."""
    for link in links.links().values():
        link.silence_branch()


def _align(key: str, link: Link, pairs: Pairs, config: LinksConfig) -> dict[str, float]:
    """One outer link, and the numbers that say how good its start is."""
    if link.main_path is None:
        raise LinksError(
            f"edge {key}: links.variant={link.variant} has no linear map that an aligned start "
            "could fill; set links.init=default."
        )
    if len(pairs) < MIN_PAIRS:
        raise LinksError(
            f"edge {key}: only {len(pairs)} shared tokens, too few for an aligned start; set "
            "links.init=default."
        )
    moments = Moments.of(pairs)
    align_outer(link, pairs, config.ridge, moments)
    if config.start_pairs == "all":
        warn_of_rank(key, link, pairs)
    return {
        "shared_tokens": len(pairs),
        "cosine_fitted": mean_cosine(link, pairs),
        "cosine_held_out": held_out_cosine(pairs, link, config.ridge, moments),
    }


def warn_of_rank(key: str, link: Link, pairs: Pairs) -> None:
    """Warn where there are fewer pairs than the map is wide: it is zero in most directions."""
    width = min(link.d_source, link.d_target)
    if len(pairs) <= width and not pairs.same:
        warnings.warn(
            f"edge {key}: the aligned start is fitted on {len(pairs)} pairs, so the rank of its "
            f"map is at most {len(pairs) - 1} of {width}: what lies in the other directions is "
            "lost at first. links.start_pairs=all with links.edge_input=inner uses every shared "
            "token.",
            LowRankWarning,
            stacklevel=2,
        )


def add_noise(link: Link, level: float, seed: int) -> None:
    """Seeded Gaussian noise on W3, ``level`` times the standard deviation of its entries."""
    main = link.main_path
    assert main is not None
    noise = torch.randn(main.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        main.weight.add_(level * main.weight.std() * noise)


def _main_output(link: Link, x: Tensor) -> Tensor:
    """The link's output while its branch is silent, without the branch's cost."""
    main = link.main_path
    assert main is not None
    return link.finish(main(x.to(link.scale.dtype)))


def _fit_norm(link: Link, pairs: Pairs) -> None:
    """Gain and bias of the closing LayerNorm, per coordinate, by least squares on the targets."""
    norm, main = link.post_ln, link.main_path
    assert norm is not None and main is not None
    sums = torch.zeros(4, link.d_target, dtype=torch.float64)  # of y, t, y t and y y
    for x, target in pairs.blocks():
        body = main(x.to(link.scale.dtype))
        y = nn.functional.layer_norm(body, (link.d_target,), eps=norm.eps).double()
        t = target.double() / link.scale.double()
        sums += torch.stack([y.sum(0), t.sum(0), (y * t).sum(0), y.pow(2).sum(0)])
    y_mean, t_mean, yt, yy = sums / len(pairs)
    gain = (yt - y_mean * t_mean) / (yy - y_mean.pow(2)).clamp_min(1e-12)
    norm.weight.copy_(gain)
    norm.bias.copy_(t_mean - gain * y_mean)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
