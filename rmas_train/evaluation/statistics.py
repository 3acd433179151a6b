"""Intervals for accuracies."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def wilson(right: float, total: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (E. B. Wilson, 1927).

    Args:
        right: of the total; no whole number where single questions are right in part. Their
            variance is smaller than that of right and wrong, so the interval is too wide.
        total: questions.
    """
    if total == 0:
        return 0.0, 1.0
    p, z2 = right / total, Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    # p itself is inside, and nothing is below 0 or above 1; rounding may say otherwise.
    return max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))
