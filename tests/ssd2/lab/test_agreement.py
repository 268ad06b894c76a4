"""Cohen's κ against values worked out by hand, and against formulas of another shape."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from ssd2.lab.agreement import cohens_kappa

Table = Sequence[Sequence[int]]


def ratings(table: Table) -> list[tuple[int, int]]:
    """One pair of categories for each count of a table."""
    return [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),  # p_o = 35/50, p_e = .5 × .6 + .5 × .4 = .5
        ([[45, 15], [25, 15]], 3 / 23),  # p_o = .6, p_e = .6 × .7 + .4 × .3 = .54
        ([[25, 35], [5, 35]], 7 / 27),  # p_o = .6, p_e = .6 × .3 + .4 × .7 = .46
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 23 / 34),  # p_o = .89, p_e = .8 × .8 + .1 × .05 + .1 × .15 = .66
        ([[0, 5], [5, 0]], -1),
        ([[3, 0, 0], [0, 2, 0], [0, 0, 1]], 1),
        ([[4, 4], [4, 4]], 0),
    ],
)
def test_kappa_is_that_worked_out_by_hand(table: Table, kappa: float) -> None:
    found = cohens_kappa(ratings(table))
    assert found is not None
    assert found.value == pytest.approx(kappa)


def kappa_of(shares: Mapping[tuple[str, str], float]) -> float:
    """κ as one minus observed over expected disagreement, of the shares of all cells."""
    observed = sum(share for (a, b), share in shares.items() if a != b)
    expected = sum(x * y for (a, _), x in shares.items() for (_, b), y in shares.items() if a != b)
    return 1 - observed / expected


@pytest.mark.parametrize("seed", range(5))
def test_kappa_and_interval_are_those_of_the_delta_method(seed: int) -> None:
    rng = random.Random(seed)
    truth = [rng.choice("wtl") for _ in range(60)]
    one, other = ([x if rng.random() < 0.6 else rng.choice("wwtl") for x in truth] for _ in range(2))
    both = list(zip(one, other, strict=True))
    counts = Counter(both)
    shares = {(a, b): counts[a, b] / 60 for a in "wtl" for b in "wtl"}
    step = 1e-6
    slopes = {
        cell: (kappa_of({**shares, cell: shares[cell] + step}) - kappa_of({**shares, cell: shares[cell] - step}))
        / (2 * step)
        for cell in shares
    }
    mean = sum(shares[cell] * slopes[cell] for cell in shares)
    variance = sum(shares[cell] * (slopes[cell] - mean) ** 2 for cell in shares) / 60
    found = cohens_kappa(both)
    assert found is not None
    assert found.value == pytest.approx(kappa_of(shares))
    half = 1.959964 * math.sqrt(variance)
    assert found.interval == pytest.approx((found.value - half, found.value + half), abs=1e-4)


def test_agreement_by_chance_is_that_of_every_item_with_every_other() -> None:
    both = ratings([[7, 2, 1], [3, 5, 2], [0, 1, 9]])
    observed = sum(a == b for a, b in both) / len(both)
    chance = sum(a == b for a, _ in both for _, b in both) / len(both) ** 2
    found = cohens_kappa(both)
    assert found is not None
    assert found.value == pytest.approx((observed - chance) / (1 - chance))


def test_kappa_is_undefined_without_items_or_with_one_category_only() -> None:
    assert cohens_kappa([]) is None
    assert cohens_kappa([("tie", "tie")] * 5) is None
    never = cohens_kappa([("win", "loss")] * 5)
    assert never is not None
    assert never.value == 0, "each has one category, but not the same"
