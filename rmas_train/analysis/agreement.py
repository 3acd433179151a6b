"""How well a guess at what matters agrees with what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor


def agreement(guess_BP: Tensor, measured_BP: Tensor) -> dict[str, Any]:
    """Rank correlations (Spearman) of absolute values, and how often the first is the first.

    ``within_rows``: mean over rows of the correlation over places; ``pooled``: over all rows and
    places; ``over_places``: of the means over rows; ``first``: share of rows in which both rank
    the same place first. None where there is nothing to rank.
    """
    guess, measured = (x.abs().double().cpu().numpy() for x in (guess_BP, measured_BP))
    rows = [rank_correlation(a, b) for a, b in zip(guess, measured, strict=True)]
    known = [rho for rho in rows if rho is not None]
    return {
        "within_rows": float(np.mean(known)) if known else None,
        "pooled": rank_correlation(guess.ravel(), measured.ravel()),
        "over_places": rank_correlation(guess.mean(0), measured.mean(0)),
        "first": float((guess.argmax(1) == measured.argmax(1)).mean()),
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's; None where one of the two does not vary, or has fewer than two values."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(stats.spearmanr(a, b).statistic)
