"""Comparison of two settings on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Discordant:
    """Items that only one of two settings has right.

    Attributes:
        only_first: that only the first has right.
        only_second: that only the second has right.
    """

    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Discordant:
        """Count them; both settings have the items in the same order."""
        pairs = list(zip(first, second, strict=True))
        return cls(sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the exact sign test on the discordant items, in (0, 1] (McNemar 1947)."""
        differing = self.only_first + self.only_second
        tail = sum(math.comb(differing, k) for k in range(min(self.only_first, self.only_second) + 1))
        return min(1.0, math.ldexp(tail, 1 - differing))
