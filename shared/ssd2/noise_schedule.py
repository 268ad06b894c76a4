"""The cumulative noise schedule alpha_bar_t and the timesteps that a decode visits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssd2.errors import InvalidParameter

TRAINED_TIMESTEPS = 1000
"""T: timesteps are whole numbers in [1, T]; the models see t/T."""

EARLY_STOP = 0.4
"""Decoding stops at t = 0.4T: below it the sequence hardly ever changes (§3.1)."""

EXPERT_RANGES = ((0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
"""Shares of T, (above, up to], of the experts θ(0.4,0.6), θ(0.6,0.8) and θ(0.8,1.0) (§3.1)."""

DEFAULT_STEPS = 25
"""Timesteps a block is decoded with, unless more are asked for."""

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


def decoding_timesteps(steps: int, stop: float = EARLY_STOP) -> tuple[int, ...]:
    """The timesteps that a decode visits, from T downwards, evenly over (stop·T, T].

    Args:
        steps: how many, at least 1.
        stop: early stop as a share of T, in [0, 1); the paper's is 0.4.

    Returns:
        `steps` strictly decreasing whole numbers; the first is T, the last above stop·T.

    Raises:
        InvalidParameter: if the range cannot hold `steps` different timesteps.
    """
    if not 0 <= stop < 1:
        raise InvalidParameter(f"stop is {stop}; it is a share of T and must be in [0, 1)")
    span = TRAINED_TIMESTEPS - TRAINED_TIMESTEPS * stop  # 1 - stop is rounded, and 0.9 would lose a timestep
    if not 1 <= steps <= int(span):
        raise InvalidParameter(
            f"steps is {steps}; between T = {TRAINED_TIMESTEPS} and the early stop at {stop:g}T "
            f"there is room for 1 to {int(span)}"
        )
    return tuple(TRAINED_TIMESTEPS - int(i * span / steps) for i in range(steps))
