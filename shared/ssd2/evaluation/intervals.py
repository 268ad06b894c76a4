"""95% intervals of shares and means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Z_95 = 1.959963984540054
"""Quantile of the standard normal distribution at 0.975."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's score interval at 95%, which keeps its width where all or none are right.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22.

    Args:
        share: observed, in [0, 1].
        count: of observations.
    """
    spread = Z_95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))  # whatever rounding does


def mean_interval(values: Sequence[float], lowest: float, highest: float) -> tuple[float, float] | None:
    """95% interval of a mean by the normal approximation, cut at the ends of the scale.

    It has no width where all values are the same, as few as they may be: trust it from some dozens on.

    Args:
        values: observed; fewer than two have no interval.
        lowest: end of the scale.
        highest: other end of the scale.
    """
    if len(values) < 2:
        return None
    half = Z_95 * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return max(lowest, mean - half), min(highest, mean + half)


def paired_interval(lost: int, gained: int, count: int) -> tuple[float, float]:
    """95% interval of the share that is lost between two settings on the same items.

    Wald's interval with half an item more in each of the four cells, which keeps its width where no answer differs.

    Source: Agresti & Min 2005, Statistics in Medicine 24.

    Args:
        lost: items that only the first setting has right.
        gained: items that only the second one has right.
        count: of all items.
    """
    more, fewer, total = lost + 0.5, gained + 0.5, count + 2
    share = (more - fewer) / total
    half = Z_95 * math.sqrt((more + fewer) / total - share**2) / math.sqrt(total)
    return max(-1.0, share - half), min(1.0, share + half)
