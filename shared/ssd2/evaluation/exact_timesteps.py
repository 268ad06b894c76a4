"""How often a projection is provably the one that full logits of the core would give."""

from __future__ import annotations

from ssd2.collaboration import Timestep
from ssd2.exactness import proven
from ssd2.params import CollaborationParams, DecodingParams


class ExactTimesteps:
    """Counts over the blocks of a decode, less those behind an answer's end."""

    def __init__(self, collaboration: CollaborationParams, params: DecodingParams, eos_token_id: int) -> None:
        self._lambda_user, self._params, self._eos_token_id = collaboration.lambda_user, params, eos_token_id
        self._exact = self._all = 0

    @property
    def share(self) -> float:
        """Of the timesteps that were seen, those that are proven at every position."""
        return self._exact / self._all

    def see(self, timestep: Timestep) -> None:
        """One timestep of a batch."""
        request, core = timestep.request, timestep.core
        goes_on = ~(request.answer_ids == self._eos_token_id).any(-1)
        self._all += int(goes_on.sum())
        if core is None:  # nothing of it is rounded
            self._exact += int(goes_on.sum())
            return
        draws = [seeds.sampling for seeds in timestep.seeds]
        is_proven = proven(
            core, timestep.mixed, self._lambda_user, self._params, draws, request.block, request.timestep
        )
        self._exact += int((is_proven.all(-1) & goes_on).sum())
