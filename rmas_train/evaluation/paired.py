"""Two systems on the same questions: difference, interval, test, and what could have been seen.

Questions are paired, because systems that answer the same ones differ by much less than two
independent samples would. Differences are in absolute terms: 0.1 is ten points.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA, POWER = 0.05, 0.8
Z = float(stats.norm.ppf(1 - ALPHA / 2))
RESAMPLES, AT_ONCE = 2000, 200
Scores = Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """System a against system b.

    Attributes:
        n: questions that both answered.
        sources: of these questions; n where each is its own.
        difference: mean score of a minus that of b.
        ci95: of the difference, see ``interval``.
        ci95_bootstrap: the same by resampling sources with all of their questions.
        p: two-sided, see ``p_value``.
        better, worse: questions on which a has the higher score, and the lower one.
        detectable: the smallest true difference that so many questions, with so many on which the
            two disagree, show with 80% power at the 5% level.
    """

    n: int
    sources: int
    difference: float
    ci95: tuple[float, float]
    ci95_bootstrap: tuple[float, float]
    p: float
    better: int
    worse: int
    detectable: float


def compare(
    a: Scores, b: Scores, sources: Sequence[Hashable] | None = None, seed: int = 0
) -> Comparison:
    """Compare the scores of two systems, question by question.

    Args:
        a, b: a score of each question, 0 to 1, in the same order.
        sources: what each question comes from (a passage, a template); None: each its own.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no questions, or other numbers of scores.
    """
    sources = range(len(a)) if sources is None else sources
    if not len(a) == len(b) == len(sources) > 0:
        raise ValueError(f"{len(a)}, {len(b)} scores and {len(sources)} sources cannot be paired")
    gains = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    groups = _numbered(sources)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    return Comparison(
        n=len(gains),
        sources=int(groups.max()) + 1,
        difference=float(gains.mean()),
        ci95=interval(gains, groups),
        ci95_bootstrap=bootstrap(gains, groups, seed),
        p=p_value(gains, groups),
        better=better,
        worse=worse,
        detectable=detectable(len(gains), (better + worse) / len(gains), _inflation(gains, groups)),
    )


def p_value(gains: np.ndarray, groups: np.ndarray) -> float:
    """Two-sided, of no difference.

    Right or wrong, each question its own source: McNemar's test with mid-p values (Fagerland,
    Lydersen, Laake 2013), which keeps the level without being as timid as the exact one. Else: t
    test on the sums of sources.
    """
    if _is_binary(gains) and _own_sources(groups):
        better, worse = int((gains > 0).sum()), int((gains < 0).sum())
        few, both = min(better, worse), better + worse
        if better == worse:
            return 1.0
        return float(2 * stats.binom.cdf(few, both, 0.5) - stats.binom.pmf(few, both, 0.5))
    error, freedom = _clustered_error(gains, groups)
    if error == 0 or freedom == 0:
        return 0.0 if gains.mean() and freedom else 1.0
    return float(2 * stats.t.sf(abs(gains.mean()) / error, freedom))


def interval(gains: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean gain.

    Right or wrong, each question its own source: Bonett and Price (2012), whose coverage is good
    also where the systems hardly ever disagree. Else: clustered standard error.
    """
    n = len(gains)
    if _is_binary(gains) and _own_sources(groups):
        better, worse = ((gains > 0).sum() + 1) / (n + 2), ((gains < 0).sum() + 1) / (n + 2)
        middle = better - worse
        half = Z * math.sqrt((better + worse - middle**2) / (n + 2))
        return _within(middle - half), _within(middle + half)
    error, freedom = _clustered_error(gains, groups)
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error if freedom else math.inf
    return _within(gains.mean() - half), _within(gains.mean() + half)


def bootstrap(gains: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean gain; sources are drawn with all of their questions."""
    sums, sizes = np.bincount(groups, gains), np.bincount(groups)
    rng, means = np.random.default_rng(seed), np.empty(RESAMPLES)
    for begin in range(0, RESAMPLES, AT_ONCE):
        drawn = rng.integers(len(sums), size=(AT_ONCE, len(sums)))
        means[begin : begin + AT_ONCE] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def detectable(n: int, disagree: float, inflation: float = 1.0) -> float:
    """The smallest true difference that McNemar's test shows with 80% power (Connor 1987).

    Args:
        n: questions.
        disagree: share of them on which the systems differ.
        inflation: of the variance, by questions that share a source.
    """
    effective, z = n / inflation, float(stats.norm.ppf(POWER))

    def shortfall(delta: float) -> float:
        share = max(disagree, delta)  # a difference needs as many disagreements at least
        return Z * math.sqrt(share) + z * math.sqrt(share - delta**2) - delta * math.sqrt(effective)

    low, high = 0.0, 1.0
    if shortfall(high) > 0:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shortfall(middle) > 0 else (low, middle)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def _clustered_error(gains: np.ndarray, groups: np.ndarray) -> tuple[float, int]:
    """Standard error of the mean gain over sources, and its degrees of freedom (Cameron and Miller
    2015, CR1)."""
    count = int(groups.max()) + 1
    if count < 2:
        return math.inf, 0
    sums = np.bincount(groups, gains - gains.mean())
    return math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(gains), count - 1


def _inflation(gains: np.ndarray, groups: np.ndarray) -> float:
    """How much larger the variance of the mean is than with independent questions; 1 at least."""
    alone = float(gains.var()) / len(gains)
    if _own_sources(groups) or alone == 0:
        return 1.0
    return max(1.0, _clustered_error(gains, groups)[0] ** 2 / alone)


def _numbered(sources: Sequence[Hashable]) -> np.ndarray:
    numbers = {source: i for i, source in enumerate(dict.fromkeys(sources))}
    return np.array([numbers[source] for source in sources])


def _is_binary(gains: np.ndarray) -> bool:
    return bool(np.isin(gains, (-1.0, 0.0, 1.0)).all())


def _own_sources(groups: np.ndarray) -> bool:
    return int(groups.max()) + 1 == len(groups)


def _within(value: float) -> float:
    return float(min(1.0, max(-1.0, value)))
