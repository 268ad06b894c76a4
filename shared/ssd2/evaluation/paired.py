"""Paired comparison of two settings that answered the same questions."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sign_test(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact sign test on the questions that only one of two settings answered right (McNemar 1947).

    Returns:
        Its p-value, in (0, 1].
    """
    only_first, only_second = only_one_right(first, second)
    differing = only_first + only_second
    tail = sum(math.comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << differing))  # of whole numbers: as floats, a thousand questions would overflow


def only_one_right(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """Count the questions that only the first answered right, and those that only the second did."""
    pairs = list(zip(first, second, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
