"""Distributions of values, as plain numbers that are cheap to add to and small to send."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds for how long something takes, from a timestep on a GPU to an agent that is given up."""

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Bounds for the number of blocks in a batch."""


@dataclass(frozen=True)
class Distribution:
    """Counts of values by bucket.

    Attributes:
        bounds: rising upper bounds, each within its bucket.
        counts: values of each bucket, and above the last bound; one more than `bounds`.
        total: sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Tally:
    """A distribution that grows."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._total = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def taken(self) -> Distribution:
        """Return what has come until now."""
        return Distribution(self._bounds, tuple(self._counts), self._total)
