"""Agreement of two raters beyond chance: Cohen's κ with its interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ssd2.evaluation.intervals import Z_95


@dataclass(frozen=True)
class Kappa:
    """Cohen's κ.

    Attributes:
        value: 1 for full agreement, 0 for that of chance.
        interval: at 95%, by the normal approximation: too narrow for few items, without a width where the
            raters agree on all.
    """

    value: float
    interval: tuple[float, float]


def cohens_kappa(ratings: Sequence[tuple[Hashable, Hashable]]) -> Kappa | None:
    """Return Cohen's κ of two raters.

        κ = (p_o - p_e) / (1 - p_e)

    p_o is the share of items on which they agree, p_e the one expected of their own frequencies by chance.
    Source: Cohen 1960, Educ. Psychol. Meas. 20; the interval's variance is that of Fleiss, Cohen and Everitt
    1969, Psychol. Bull. 72, formula 13.

    Args:
        ratings: category by the first and by the second rater, an item each.

    Returns:
        None if there is no item, or both use one and the same category only: chance cannot be told apart.
    """
    count = len(ratings)
    shares = {cell: number / count for cell, number in Counter(ratings).items()}
    rows, columns = (_margin(ratings, place) for place in (0, 1))
    observed = math.fsum(share for (row, column), share in shares.items() if row == column)
    expected = math.fsum(number * columns[category] / count**2 for category, number in rows.items())
    if not count or len({*rows, *columns}) < 2:
        return None
    kappa = (observed - expected) / (1 - expected)
    terms = 0.0
    for (row, column), share in shares.items():
        margins = (columns[row] + rows[column]) / count
        terms += share * ((row == column) - margins * (1 - kappa)) ** 2
    variance = (terms - (kappa - expected * (1 - kappa)) ** 2) / (count * (1 - expected) ** 2)
    half = Z_95 * math.sqrt(max(0.0, variance))
    return Kappa(kappa, (max(-1.0, kappa - half), min(1.0, kappa + half)))


def _margin(ratings: Sequence[tuple[Hashable, Hashable]], place: int) -> Counter[Hashable]:
    return Counter(pair[place] for pair in ratings)
