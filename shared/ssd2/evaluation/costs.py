"""Costs of a block: timesteps, and logits of the core."""

from __future__ import annotations

from ssd2.algorithm.collaboration import Timestep
from ssd2.algorithm.params import CollaborationParams, DecodingParams

COST_COLUMNS = {"timesteps_per_block": "timesteps a block", "core_logits_per_block": "core logits a block"}
"""Columns of tables. Where the core is elsewhere, each of its logits is a round trip."""


class BlockCosts:
    """Counts over the blocks of decodes, of each row until its own block ends, as if it were decoded alone.

    Blocks behind an answer's end are not counted.
    """

    def __init__(self, collaboration: CollaborationParams, decoding: DecodingParams) -> None:
        self._collaboration, self._decoding = collaboration, decoding
        self._blocks = self._timesteps = self._core_logits = 0

    def see(self, timestep: Timestep) -> None:
        """One timestep of a batch; `on_timestep` of a decode."""
        view = timestep.view
        rows = view.rows_at_work
        self._timesteps += rows
        if view.step == 0:
            self._blocks += rows
        if self._collaboration.uses_core and self._decoding.asks_core_at(view.step):
            self._core_logits += rows

    def as_dict(self) -> dict[str, float]:
        """Means over the blocks, by their names in `COST_COLUMNS`; 0 if there was no block."""
        blocks = max(self._blocks, 1)
        return {
            "timesteps_per_block": round(self._timesteps / blocks, 4),
            "core_logits_per_block": round(self._core_logits / blocks, 4),
        }
