"""Link health from the parameters alone: norms, spectra, movement, collapse of messages.

A link that training never reached looks as it was drawn: LayerNorms at gain 1 and bias 0, and
singular values and branch where freshly drawn links of the same shape have them. That range is
sampled here, with the file's rounding, and shown beside what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmas_train.links.modules import DTYPES, Link

VECTORS, FACTORS = 512, 16
SLACK = 2.0  # a fresh range is widened by this many times its spread, each side
FRESH = ("largest", "median", "branch_over_residual")  # statistics that decide
PROXY = f"{VECTORS} seeded vectors, mixtures of {FACTORS} Gaussian factors plus noise, LayerNormed"


@dataclass(frozen=True)
class InspectedLink:
    """One link to look at.

    Attributes:
        link: itself.
        before: the source's inner link, which an outer link is applied to; None: nothing.
        start: the same link as its training began; None where nobody kept it.
        dtype: of the file it came from.
        inputs: (vectors, d_source) and what they are; None: the proxy.
    """

    link: Link
    before: Link | None = None
    start: Link | None = None
    dtype: str = "float32"
    inputs: tuple[Tensor, str] | None = None


@torch.no_grad()
def report(inspected: Mapping[str, InspectedLink], draws: int = 5, seed: int = 0) -> dict[str, Any]:
    """What each link looks like.

    Args:
        inspected: full name -> link.
        draws: freshly drawn links per shape, at least 2.
        seed: of the draws and the proxy inputs.

    Returns:
        plain data: per link ``statistics``, ``fresh`` (statistic -> [least, most] of the draws),
        ``moved``, ``norms``, ``looks_untouched`` and ``why``; ``inputs``: what was sent through.
    """
    return {
        "schema": 1,
        "draws": draws,
        "slack": SLACK,
        "links": {name: _describe(one, draws, seed) for name, one in inspected.items()},
    }


def _describe(one: InspectedLink, draws: int, seed: int) -> dict[str, Any]:
    vectors, what = one.inputs or (proxy_inputs(one.link.d_source, seed), PROXY)
    if one.before is not None:
        vectors, what = one.before(vectors), f"{what}, then the source's inner link"
    found = statistics(one.link, vectors)
    fresh = fresh_ranges(one.link, one.dtype, vectors, draws, seed)
    moved = None if one.start is None else movement(one.link, one.start)
    why = reasons(one.link, found, fresh, moved)
    return {
        "widths": [one.link.d_source, one.link.d_target],
        "dtype": one.dtype,
        "inputs": what,
        "norms": {k: float(v.double().norm()) for k, v in one.link.named_parameters()},
        "statistics": found,
        "fresh": fresh,
        "moved": moved,
        "looks_untouched": why is not None,
        "why": why,
    }


def proxy_inputs(width: int, seed: int) -> Tensor:
    """(VECTORS, width) that have near neighbours; vectors of pure noise have none."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(VECTORS, FACTORS, generator=generator)
    mixing = torch.randn(FACTORS, width, generator=generator) / FACTORS**0.5
    noise = torch.randn(VECTORS, width, generator=generator)
    return F.layer_norm(factors @ mixing + 0.3 * noise, (width,))


def statistics(link: Link, vectors: Tensor) -> dict[str, float]:
    """Numbers of one link.

    ``largest``, ``median``, ``least``: singular values of the main map (W3, or the first layer
    where there is no W3). ``branch_over_residual``: mean norm of W2 gelu(W1 LN(x)) over that of the
    residual path.
    ``output_norm_p5``, ``_p50``, ``_p95``. ``cosine_in``, ``cosine_out``: mean over pairs of
    different vectors. ``neighbours_kept``: share of vectors whose nearest one stays the nearest.
    """
    main = link.main_path or next(m for m in link.modules() if isinstance(m, nn.Linear))
    values = torch.linalg.svdvals(main.weight.float())
    out = link(vectors)
    norms = out.double().norm(dim=-1)
    found = {
        "largest": values[0].item(),
        "median": values.median().item(),
        "least": values[-1].item(),
        "branch_over_residual": branch_over_residual(link, vectors),
        "cosine_in": mean_cosine(vectors),
        "cosine_out": mean_cosine(out),
        "neighbours_kept": neighbours_kept(vectors, out),
    }
    for percent in (5, 50, 95):
        found[f"output_norm_p{percent}"] = norms.quantile(percent / 100).item()
    return found


def branch_over_residual(link: Link, vectors: Tensor) -> float:
    """0 where the link has no branch beside a residual path."""
    residual = link.residual(vectors)
    if residual is None:
        return 0.0
    branch = link.body(vectors) - residual
    return (branch.norm(dim=-1) / residual.norm(dim=-1)).mean().item()


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine over ordered pairs of different vectors: |sum of directions|^2 without itself."""
    unit = F.normalize(vectors.double(), dim=-1)
    count = len(unit)
    return ((unit.sum(0).pow(2).sum() - unit.pow(2).sum()) / (count * (count - 1))).item()


def neighbours_kept(before: Tensor, after: Tensor) -> float:
    """Share of vectors whose nearest other one, by cosine, is the same before and after."""
    nearest = []
    for vectors in (before, after):
        unit = F.normalize(vectors.double(), dim=-1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2).argmax(-1))
    return (nearest[0] == nearest[1]).double().mean().item()


def fresh_ranges(
    link: Link, dtype: str, vectors: Tensor, draws: int, seed: int
) -> dict[str, list[float]]:
    """Statistic -> least and most over freshly drawn links of this shape, rounded to ``dtype``."""
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(draws):
            fresh = link.fresh()
            for parameter in fresh.parameters():
                parameter.copy_(parameter.to(DTYPES.get(dtype, torch.float32)).float())
            rows.append(statistics(fresh, vectors))
    return {k: [min(r[k] for r in rows), max(r[k] for r in rows)] for k in rows[0]}


def movement(link: Link, start: Link) -> dict[str, float]:
    """Parameter -> norm of its change since the start, over its norm at the start (or over 1)."""
    begun = dict(start.named_parameters())
    return {
        key: ((now.double() - begun[key].double()).norm() / (begun[key].norm().item() or 1)).item()
        for key, now in link.named_parameters()
    }


def reasons(
    link: Link,
    found: Mapping[str, float],
    fresh: Mapping[str, list[float]],
    moved: Mapping[str, float] | None,
) -> str | None:
    """Why a link looks as if no training had reached it; None where it does not."""
    if moved is not None:
        return "equal to its start, bit by bit" if not any(moved.values()) else None
    both = [norm for end in link.ends() for norm in (end.pre_ln, end.post_ln)]
    norms = [norm for norm in both if norm is not None]
    if len(norms) < len(both):
        return None
    if any((n.weight != 1).any() or (n.bias != 0).any() for n in norms):
        return None
    for key in FRESH:
        least, most = fresh[key]
        slack = SLACK * (most - least)
        if not least - slack <= found[key] <= most + slack:
            return None
    return (
        "both LayerNorms have gain exactly 1 and bias exactly 0, and singular values and branch "
        "are within the range of freshly drawn links"
    )
