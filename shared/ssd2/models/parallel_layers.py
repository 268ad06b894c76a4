"""Layers of which each rank holds a part: Megatron's tensor parallelism, for inference.

Of two layers that follow one another the first is cut by its outputs and the second by its inputs, so that a rank
computes its attention heads, or its part of the feed-forward width, by itself, and one sum over the ranks gives what
all make together.

Source: Megatron-LM (arXiv 1909.08053), §3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from ssd2.errors import InvalidParameter
from ssd2.models.shard import Shard


class RowParallelLinear(nn.Linear):
    """A layer cut by its inputs, of which it is given this rank's part; its outputs are of all ranks."""

    def __init__(self, whole: nn.Linear, shard: Shard) -> None:
        super().__init__(whole.in_features, whole.out_features, whole.bias is not None, device="meta")
        self.weight, self.bias = whole.weight, whole.bias
        self._shard = shard

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., this rank's part of in_features] -> [..., out_features]."""
        output = self._shard.sum(F.linear(inputs, self.weight))
        return output if self.bias is None else output + self.bias  # once, not by every rank


class SplitInputLinear(RowParallelLinear):
    """The same for a layer that is given all of its inputs: it takes in this rank's part."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return super().forward(inputs[..., self._shard.part(self.in_features)])


class GatheredLinear(nn.Linear):
    """A layer cut by its outputs, which are gathered: all ranks have all of them."""

    def __init__(self, whole: nn.Linear, shard: Shard) -> None:
        super().__init__(whole.in_features, whole.out_features, whole.bias is not None, device="meta")
        self.weight, self.bias = whole.weight, whole.bias
        self._shard = shard

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return self._shard.gather(super().forward(inputs))[..., : self.out_features]


def look_up(token_ids: Tensor, rows: int, shard: Shard, own: Callable[[Tensor], Tensor]) -> Tensor:
    """Look token ids up in an embedding that is cut over the vocabulary.

    Args:
        token_ids: [...].
        rows: of the embedding that this rank has.
        shard: of the rank.
        own: looks up rows of its own, [...] -> [..., D].

    Returns:
        [..., D], of whichever rank has them.
    """
    row = token_ids - shard.rank * rows
    is_elsewhere = (row < 0) | (row >= rows)
    return shard.sum(own(row.clamp(0, rows - 1)).masked_fill(is_elsewhere[..., None], 0))


def cut(shard: Shard, whole: Tensor, dim: int, pieces: int = 1) -> Tensor:
    """Return a rank's part of a weight.

    Args:
        shard: of the rank.
        whole: the weight.
        dim: that is cut.
        pieces: layers that lie one after the other in it, each of which is cut.
    """
    size = whole.shape[dim] // pieces
    parts = [piece.narrow(dim, *_place(shard.part(size))) for piece in whole.split(size, dim)]
    # A view would keep the whole.
    return torch.cat(parts, dim) if pieces > 1 else parts[0].clone(memory_format=torch.contiguous_format)


def cut_padded(shard: Shard, whole: Tensor) -> Tensor:
    """Return a rank's part of what has V rows, filled up with zeros: of one size on all ranks, to be gathered."""
    rows = math.ceil(len(whole) / shard.ranks)
    part = cut(shard, whole, 0)
    return torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])])


def _place(part: slice) -> tuple[int, int]:
    return part.start, part.stop - part.start


def check_divides(numbers: Iterable[tuple[str, int]], ranks: int, heads: int) -> None:
    """Refuse a number of ranks that something does not divide by, and say which would do.

    Args:
        numbers: what is cut, in words, and how many there are.
        ranks: to cut it into.
        heads: ranks at most.

    Raises:
        InvalidParameter: if one of the numbers does not divide.
    """
    numbers = list(numbers)
    if any(number % ranks for _, number in numbers):
        possible = [str(n) for n in range(1, heads + 1) if not any(number % n for _, number in numbers)]
        *most, last = [what for what, _ in numbers]
        raise InvalidParameter(
            f"{', '.join(most)} and {last} are not divisible by {ranks}; use one of {', '.join(possible)}",
            parameter="tensor_parallel",
        )
