"""Comparison of two settings on the same items."""

from __future__ import annotations

import pytest

from ssd2.evaluation.paired import Discordant


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (4, 1, 12 / 32), (3, 3, 1.0)],
)
def test_the_sign_test_is_exact_and_counts_discordant_items_only(first: int, second: int, p: float) -> None:
    pairs = [(True, False)] * first + [(False, True)] * second + [(True, True)] * 7 + [(False, False)] * 2
    between = Discordant.of(*zip(*pairs, strict=True))
    assert (between.only_first, between.only_second) == (first, second)
    assert between.p_value == pytest.approx(p)
    assert Discordant(second, first).p_value == between.p_value
