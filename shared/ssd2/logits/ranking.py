"""The first few entries of a vocabulary, in one order on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

STRIDE = 32
"""Of a single row's entries one in so many is looked at, to leave out most of those that are not among the first."""


def ranked(values: Tensor, count: int, *, largest: bool) -> Tensor:
    """Ids of the largest or of the smallest values, in order; of equal ones the lowest id first.

    `torch.topk` leaves open which of several equal values it takes; a sort would not, and takes ten times as long.

    Args:
        values: [..., V], float32, none below 0.
        count: how many.
        largest: which end.

    Returns:
        int64, [..., count].
    """
    if count == values.shape[-1]:
        return _all(values, largest=largest)
    first = _first(values.flatten(), count, largest=largest) if values.numel() == values.shape[-1] else None
    if first is not None:
        return first.view(*values.shape[:-1], count)
    ids = torch.arange(values.shape[-1], device=values.device)
    return _keys(values, ids, largest=largest).topk(count, dim=-1, largest=False).values & 0xFFFFFFFF


def _all(values: Tensor, *, largest: bool) -> Tensor:
    """Rank all entries. A CPU sorts a single row of 32-bit whole numbers by radix, eight times as fast as others."""
    keys = values.view(torch.int32)
    rows = (-keys if largest else keys).view(-1, values.shape[-1])
    return torch.stack([row.sort(stable=True).indices for row in rows]).view(values.shape)


def _keys(values: Tensor, ids: Tensor, *, largest: bool) -> Tensor:
    """Whole numbers in the order of values and, of equal ones, of ids, which are their lower halves."""
    # The bits of a float that is not negative, read as an integer, are in the float's order.
    keys = values.view(torch.int32).to(torch.int64)
    if largest:
        keys.neg_()
    return keys.bitwise_left_shift_(32).add_(ids)


def _first(values: Tensor, count: int, *, largest: bool) -> Tensor | None:
    """Rank a single row by way of the entries above a value that about as many are above; None if too few are."""
    some = values[::STRIDE]
    expected = count / STRIDE
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 4  # too low once in thousands of times
    if rank > len(some) // 2:
        return None
    border = some.topk(rank, largest=largest).values[-1]
    beyond = (values > border if largest else values < border).nonzero().flatten()
    keys = _keys(values[beyond], beyond, largest=largest).sort().values & 0xFFFFFFFF
    missing = count - len(keys)
    if missing <= 0:
        return keys[:count]
    for part in (values[: 4 * missing], values):  # where many are equal, the lowest ids are at the beginning
        equal = (part == border).nonzero().flatten()
        if len(equal) >= missing:
            return torch.cat([keys, equal[:missing]])
    return None
