"""Share of the projections that are provably those that full logits of the core would give."""

from __future__ import annotations

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import DecodingParams


class ExactTimesteps:
    """Counts over the blocks of decodes, of each row until its own block ends."""

    def __init__(self, params: DecodingParams) -> None:
        self._params = params
        self._exact = self._all = 0

    @property
    def share(self) -> float:
        """Share of the timesteps seen that are proven at every position."""
        return self._exact / self._all

    def see(self, timestep: Timestep) -> None:
        """One timestep of a batch."""
        view, core = timestep.view, timestep.core
        self._all += view.rows_at_work
        if core is None:  # nothing of it is rounded
            self._exact += view.rows_at_work
            return
        draws = [seeds.sampling for seeds in timestep.seeds]
        mixed, weight = timestep.mixed, timestep.weights.core
        is_proven = proven(core, mixed, weight, self._params, draws, view.block, view.timestep)
        is_proven = is_proven.all(-1)
        self._exact += int((is_proven if view.is_done is None else is_proven & ~view.is_done).sum())
