"""The first few entries of a vocabulary, in one order on every device."""

from __future__ import annotations

import torch
from torch import Tensor


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
    # The bits of a float that is not negative, read as an integer, are in the float's order.
    keys = values.view(torch.int32).to(torch.int64)
    if largest:
        keys.neg_()
    keys.bitwise_left_shift_(32).add_(torch.arange(values.shape[-1], device=values.device))
    return keys.topk(count, dim=-1, largest=False).values & 0xFFFFFFFF
