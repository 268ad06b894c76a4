"""Decoding settings that are compared to find a checkpoint's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ssd2.algorithm.block_end import patience_from
from ssd2.algorithm.measured import CROSSING
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import InvalidParameter
from ssd2.evaluation.pair import Pair


@dataclass(frozen=True)
class Grid:
    """Settings to try.

    Attributes:
        stops: shares of T.
        steps: timesteps of a block.
        patiences: each at least 1; no patience is tried anyway.
        modes: of self-conditioning.
    """

    stops: tuple[float, ...] = (0.0, 0.2, 0.4)
    steps: tuple[int, ...] = (4, 8, 16, 25, 42, 100)
    patiences: tuple[int, ...] = (1, 2, 4)
    modes: tuple[str, ...] = CROSSING

    def __post_init__(self) -> None:
        if not self.stops or not self.steps:
            raise InvalidParameter("there is nothing to measure; choose a stop and a number of timesteps")
        if self.patiences and min(self.patiences) < 1:
            raise InvalidParameter(f"patience is {min(self.patiences)}; it must be at least 1 timestep")

    def of_pair(self, pair: Pair) -> Grid:
        """Return the part of the grid that a pair can be decoded with.

        Raises:
            InvalidParameter: if it writes token by token, without timesteps.
        """
        configs = (pair.core.model.config, pair.user.model.config)
        if any(config.default_steps == 1 for config in configs):
            raise InvalidParameter(
                "these models write token by token, without timesteps to measure; use a pair of diffusion models"
            )
        lowest = max(config.trained_above for config in configs)
        feeds_back = all(config.feeds_back for config in configs)
        return replace(
            self,
            stops=tuple(sorted({max(stop, lowest) for stop in self.stops})),
            modes=self.modes if feeds_back else self.modes[:1],
        )

    def references(self, pair: Pair) -> list[DecodingParams]:
        """Return all timesteps, one decode for each mode: the most of them, to the lowest stop, without patience."""
        return [_decoding(pair, min(self.stops), max(self.steps), mode) for mode in self.modes]

    def without_patience(self, pair: Pair) -> list[DecodingParams]:
        """Return all decodes without patience."""
        each = [(stop, steps, mode) for mode in self.modes for stop in self.stops for steps in self.steps]
        return [_decoding(pair, *one) for one in each]

    def with_patience(self, decoding: DecodingParams, vocab_size: int) -> Iterator[tuple[DecodingParams, int]]:
        """Yield a decode with each patience that can end its blocks early.

        Yields:
            The decode, and the fewest timesteps that a block of it can take.
        """
        counts_from = patience_from(decoding.stop * TRAINED_TIMESTEPS, vocab_size)
        first = max(1, sum(t > counts_from for t in decoding.timesteps))  # two projections are compared
        for patience in self.patiences:
            if (fewest := first + patience) < decoding.steps:
                yield replace(decoding, patience=patience), fewest


def _decoding(pair: Pair, stop: float, steps: int, mode: str) -> DecodingParams:
    return pair.decoding(stop=stop, steps=steps, patience=0, self_conditioning=mode)
