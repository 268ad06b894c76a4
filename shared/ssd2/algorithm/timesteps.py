"""The timesteps that the models know, and those that a decode visits."""

from __future__ import annotations

import math
from fractions import Fraction

from ssd2.errors import InvalidParameter

TRAINED_TIMESTEPS = 1000
"""T: timesteps are whole numbers in [1, T]; the models see t/T."""

EXPERT_RANGES = ((0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
"""Shares of T, (above, up to], of the experts θ(0.4,0.6), θ(0.6,0.8) and θ(0.8,1.0) (§3.1)."""

DEFAULT_STEPS = 25
"""Timesteps a block is decoded with, unless more are asked for."""

SCHEDULES: dict[str, tuple[tuple[Fraction, int], ...]] = {
    "even": ((Fraction(0), 1),),
    "changes": ((Fraction(4, 5), 2), (Fraction(3, 5), 5), (Fraction(2, 5), 3), (Fraction(0), 1)),
}
"""How timesteps are spread: from T downwards, the lower end of each range as a share of T, and its part of them.

"changes" has most of them where §3.1 sees most tokens change: "no discernable pattern" in (0.8T, T],
"larger changes" in (0.6T, 0.8T], "only minor changes" in (0.4T, 0.6T], none "in most cases" below.
The parts themselves are ours; the paper spreads its timesteps evenly.
"""


def decoding_timesteps(steps: int, stop: float = 0.0, schedule: str = "even") -> tuple[int, ...]:
    """The timesteps that a decode visits, from T downwards over (stop·T, T].

    Args:
        steps: how many, at least 1.
        stop: early stop as a share of T, in [0, 1). The paper's is 0.4, below which its sequences hardly ever change
            (§3.1); that was found with the mix fed back in one process.
        schedule: one of `SCHEDULES`; of a range that the stop cuts, the part is cut alike.

    Returns:
        `steps` strictly decreasing whole numbers; the first is T, the last above stop·T.

    Raises:
        InvalidParameter: if there is no such schedule, or it has no room for `steps` different timesteps.
    """
    if not 0 <= stop < 1:
        raise InvalidParameter(f"stop is {stop}; it is a share of T and must be in [0, 1)", parameter="stop")
    if schedule not in SCHEDULES:
        raise InvalidParameter(f"schedule is {schedule!r}; choose from {', '.join(SCHEDULES)}", parameter="schedule")
    ranges = _ranges_above(stop, schedule)
    room = math.floor(min((length / part for length, part in ranges), default=0))
    if not 1 <= steps <= room:
        raise InvalidParameter(
            f"steps is {steps}; between T = {TRAINED_TIMESTEPS} and the early stop at {stop:g}T "
            f"there is room for 1 to {room} (schedule {schedule!r})",
            parameter="steps",
            limit=room,
        )
    return tuple(TRAINED_TIMESTEPS - math.floor(_descent(Fraction(i, steps), ranges)) for i in range(steps))


def _ranges_above(stop: float, schedule: str) -> list[tuple[Fraction, Fraction]]:
    """Length in timesteps and part of the timesteps of each range above the stop, from T downwards; parts sum to 1."""
    lowest = Fraction(stop).limit_denominator(TRAINED_TIMESTEPS**2)  # the share that was meant, 0.4 as 2/5
    ranges, upper = [], Fraction(1)
    for lower, part in SCHEDULES[schedule]:
        if (kept := upper - max(lower, lowest)) > 0:
            ranges.append((kept * TRAINED_TIMESTEPS, part * kept / (upper - lower)))
        upper = lower
    total = sum(part for _, part in ranges)
    return [(length, part / total) for length, part in ranges]


def _descent(share: Fraction, ranges: list[tuple[Fraction, Fraction]]) -> Fraction:
    """Return how far below T a decode is, in timesteps, when it has had a share of its timesteps."""
    descent = Fraction(0)
    for length, part in ranges:
        descent += length * min(Fraction(1), share / part)
        share = max(Fraction(0), share - part)
    return descent
