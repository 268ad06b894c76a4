"""Sizes of batches that have a CUDA graph, to which others are padded: few, whatever agents ask for.

See docs/decisions/011-cuda-graphs.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

MAX_GRAPH_BATCH = 16
"""Rows of the largest batch with a CUDA graph: larger ones keep a GPU busy for longer than their launches take."""

MIN_GRAPH_EXTENT = 128
"""Places of the shortest rows with one; longer ones have twice as many, and so on."""


def graph_batches(slots: int) -> list[int]:
    """Sizes of batches with a graph: powers of two, up to one that all slots fit or the largest."""
    batches = [1]
    while batches[-1] < min(slots, MAX_GRAPH_BATCH):
        batches.append(2 * batches[-1])
    return batches


def graph_extents(max_tokens: int) -> list[int]:
    """Lengths of rows, with what is computed behind them, that have a graph; the last is that of a slot."""
    extents = [MIN_GRAPH_EXTENT]
    while extents[-1] < max_tokens:
        extents.append(2 * extents[-1])
    return [*extents[:-1], max_tokens]


class GraphSizes:
    """All sizes with a graph."""

    def __init__(self, slots: int, max_tokens: int) -> None:
        """Choose them.

        Args:
            slots: rows at a time.
            max_tokens: of a row that has a graph.
        """
        self._batches, self._extents = graph_batches(slots), graph_extents(max_tokens)

    @property
    def largest_batch(self) -> int:
        """Rows of the largest batch."""
        return self._batches[-1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Batch and extent of each graph, the largest first, in whose memory the others find room."""
        return product(reversed(self._batches), reversed(self._extents))

    def padded(self, batch: int, extent: int) -> tuple[int, int] | None:
        """Return batch and extent of the smallest graph that fits; None if there is none."""
        if batch > self._batches[-1] or extent > self._extents[-1]:
            return None
        return next(b for b in self._batches if b >= batch), next(e for e in self._extents if e >= extent)
