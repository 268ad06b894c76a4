"""The cumulative noise schedule alpha_bar_t."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS

_OFFSET = 1e-4


def alpha_bar(t: Tensor) -> Tensor:
    """Share of the signal's variance that is left at a timestep, the cosine schedule.

        alpha_bar(t) = r(t) / r(0),  r(t) = cos²((t/T + s) / (1 + s) · π/2),  s = 1e-4

    Source: SSD-LM (arXiv 2210.17432), from which SSD-2 takes it over.

    Args:
        t: timesteps in [0, T], any shape.

    Returns:
        alpha_bar_t, float32, of the same shape: 1 at t = 0, near 0 at t = T.
    """
    angle = (t.to(torch.float64) / TRAINED_TIMESTEPS + _OFFSET) / (1 + _OFFSET) * (math.pi / 2)
    r_0 = math.cos(_OFFSET / (1 + _OFFSET) * (math.pi / 2)) ** 2
    return (torch.cos(angle).square() / r_0).to(torch.float32)


@cache
def readable_from(vocab_size: int) -> int:
    """Return the largest timestep at which the projected tokens stand out of x_t.

        2·sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t) > sqrt(2·ln V)

    A token at +K leads the others by 2K·sqrt(alpha_bar_t); the largest of V draws of noise at K·sqrt(1 - alpha_bar_t)
    lies near sqrt(2·ln V) standard deviations. Above this timestep x_t says next to nothing of the projection: 0.33T
    at V = 512, 0.26T at V = 50,272.
    """
    alpha_bar_t = alpha_bar(torch.arange(TRAINED_TIMESTEPS + 1)).to(torch.float64)
    is_readable = 2 * alpha_bar_t.sqrt() > (1 - alpha_bar_t).sqrt() * math.sqrt(2 * math.log(vocab_size))
    return int(is_readable.sum()) - 1  # alpha_bar falls with t
