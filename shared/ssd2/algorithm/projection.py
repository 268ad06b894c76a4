"""Projected tokens and their place in a decode: what crosses of a timestep, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepPosition:
    """The timestep that a message belongs to.

    Attributes:
        number: counts the timesteps of a stream from 0.
        block: index of the block.
        step: index of the timestep in the block.
    """

    number: int
    block: int
    step: int

    def after(self, *, is_commit: bool) -> StepPosition:
        """The timestep that follows this one's projection."""
        block, step = (self.block + 1, 0) if is_commit else (self.block, self.step + 1)
        return StepPosition(self.number + 1, block, step)


FIRST = StepPosition(number=0, block=0, step=0)
"""Where every stream begins."""


@dataclass(frozen=True)
class ProjectedTokens:
    """A projected simplex as the tokens at +K.

    Attributes:
        token_ids: position after position.
        counts: how many of them each position has; empty for one at every position.
    """

    token_ids: tuple[int, ...]
    counts: tuple[int, ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """The position of each token."""
        if not self.counts:
            return tuple(range(len(self.token_ids)))
        return tuple(position for position, count in enumerate(self.counts) for _ in range(count))
