"""The lanes of an engine: how the answers of each model are computed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from core_server.engine.cuda_graphs import CudaGraphs, CudaRecorder
from ssd2.algorithm.block_view import BlockView, ProjectedAt
from ssd2.algorithm.collaboration import Predictor
from ssd2.models.lane import Lane, NoLane, Row
from ssd2.models.model import Model
from ssd2.models.predict import begin
from ssd2.models.registry import family_named


def lane_for(model: Model, slots: int, *, compiled: bool = False) -> Lane:
    """Make the lane of a model.

    Args:
        model: of any family.
        slots: answers at a time, numbered from 0.
        compiled: whether SSD-2's noise is compiled, which takes seconds for each size of batch.
    """
    family = family_named(model.config.family)
    device = next(model.parameters()).device
    graphs = partial(CudaGraphs, CudaRecorder(device)) if device.type == "cuda" else None
    if family.lane is None:
        return SingleLane(model, f"models of the family {family.name} are not computed in batches")
    try:
        return family.lane(model, slots, compiled=compiled, graphs=graphs)
    except NoLane as reason:
        return SingleLane(model, str(reason))


class SingleLane:
    """Models whose rows are not one batch: one answer at a time, with what each predictor remembers by itself.

    Attributes:
        reason: why they are not.
    """

    def __init__(self, model: Model, reason: str) -> None:
        self._model, self.reason = model, reason
        self._predictors: dict[int, Predictor] = {}

    def kind(self, row: Row) -> Hashable:
        """See `Lane.kind`."""
        return row.slot

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See `Lane.logits`."""
        (row,) = rows
        request, state, device = row.request, row.state, next(self._model.parameters()).device
        if row.slot not in self._predictors:
            self._predictors[row.slot] = begin(self._model, [request.prompt_ids], request.self_conditioning)
        trail = (ProjectedAt(request.timesteps[state.at.step - 1], (state.projected,)),) if state.projected else ()
        view = BlockView(
            block=state.at.block,
            step=state.at.step,
            timestep=row.timestep,
            block_size=request.block_size,
            answer_ids=torch.tensor([state.answer_ids], dtype=torch.int64, device=device),
            trail=trail,
            noise_seeds=(request.noise_seed,),
            simplex_value=request.simplex_value,
        )
        return self._predictors[row.slot].logits(view)

    def is_long(self, row: Row, *, beside: bool) -> bool:
        """See `Lane.is_long`: a predictor reads a prompt at once."""
        return False

    def read(self, row: Row, *, beside: bool) -> None:
        """See `Lane.read`: nothing is long."""

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """See `Lane.feed_back`: the predictors remember."""
        return [None] * len(rows)

    def forget(self, slot: int) -> None:
        """See `Lane.forget`."""
        self._predictors.pop(slot, None)

    def clear(self, slot: int) -> None:
        """See `Lane.clear`: a predictor is an answer's own."""
        self.forget(slot)
