"""The first few entries of a vocabulary, in one order on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HEIGHT, FEW = 64, 4
"""Entries of a column, and one in how many of all entries may be in the columns that are looked at by themselves."""

STRIDE = 32
"""Of a row's entries one in so many is its sample."""


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
    """Rank a single row by way of the few entries beyond a border, which there are about as many of."""
    found = _by_columns(values, count, largest=largest) or _by_sample(values, count, largest=largest)
    if found is None:
        return None
    border, ids = found
    first = _keys(values[ids], ids, largest=largest).sort().values & 0xFFFFFFFF
    missing = count - len(first)
    if missing <= 0:
        return first[:count]
    for part in (values[: 4 * missing], values):  # where many are equal, the lowest ids are at the beginning
        equal = (part == border).nonzero().flatten()
        if len(equal) >= missing:
            return torch.cat([first, equal[:missing]])
    return None


def _by_columns(values: Tensor, count: int, *, largest: bool) -> tuple[Tensor, Tensor] | None:
    """Lay a row out in columns, and look at those alone that hold the first few entries.

    Returns:
        The first entry of the column behind the first `count` ones, and the ids of all entries beyond it, which are
        in those columns; None if they are no small part of the row.
    """
    if HEIGHT * (count + 1) > len(values) // FEW:
        return None
    width = len(values) // HEIGHT
    grid, rest = values[: HEIGHT * width].view(HEIGHT, width), values[HEIGHT * width :]
    order = (grid.amax(0) if largest else grid.amin(0)).topk(count + 1, largest=largest)
    border, columns = order.values[-1], order.indices[:-1]
    place = _beyond(grid[:, columns], border, largest=largest)
    ids = place // count * width + columns[place % count]
    return border, torch.cat([ids, _beyond(rest, border, largest=largest) + HEIGHT * width])


def _by_sample(values: Tensor, count: int, *, largest: bool) -> tuple[Tensor, Tensor] | None:
    """Find the entries beyond one that about as many are beyond, going by a sample; None if that is no small part."""
    some = values[::STRIDE]
    expected = count / STRIDE
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 4  # too low once in thousands of times
    if rank > len(some) // 2:
        return None
    border = some.topk(rank, largest=largest).values[-1]
    return border, _beyond(values, border, largest=largest)


def _beyond(values: Tensor, border: Tensor, *, largest: bool) -> Tensor:
    """Find the entries above a border, or below it: their places in the flattened values."""
    return (values > border if largest else values < border).flatten().nonzero().flatten()
