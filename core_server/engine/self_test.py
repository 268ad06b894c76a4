"""The self-test of a model: two timesteps of a block, computed as they are served, before anybody is answered with it.

A checkpoint whose files are all right can still give numbers that are none: in a precision that it does not stand, on a
device that computes wrongly, or because training left weights that are too large.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor

from core_server.catalogue.served_model import ServedModel
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.errors import ModelBroken
from ssd2.models.lane import BlockState, Lane, Row
from ssd2.wire.codec import OpenRequest


def finite_rows(logits: Tensor) -> list[bool]:
    """Tell for each row of a batch whether softmaxes can be made of it; an id that a model does not have may be -inf.

    Args:
        logits: [B, L, V].
    """
    finite: list[bool] = logits.amax(-1).isfinite().all(-1).tolist()  # a maximum is NaN where any entry is
    return finite


# See docs/decisions/014-a-broken-model-is-not-ready.md.
@torch.inference_mode()
def self_test(lane: Lane, served: ServedModel, slot: int) -> None:
    """Compute two timesteps with each network that the lane tells apart: the second takes in what the first gave.

    Args:
        lane: of the model.
        served: the model.
        slot: of the lane, not used by any answer.

    Raises:
        ModelBroken: if logits are not finite, or all the same.
    """
    request = _request(served)
    try:
        for row in _rows_of_each_kind(lane, request, slot):
            logits = _checked(lane.logits([row]), served)
            projected = ProjectedTokens(tuple(logits[0].argmax(-1).tolist()))
            (fed_back,) = lane.feed_back([row], logits)
            state = row.state.after(projected, is_commit=False, fed_back=fed_back)
            if state.at.step < len(request.timesteps):
                _checked(lane.logits([Row(slot, request, state)]), served)
    finally:
        lane.forget(slot)


def _request(served: ServedModel) -> OpenRequest:
    """An answer of one block at all timesteps that the model was trained for, as an agent may ask for it."""
    config, card = served.config, served.card
    lowest = config.trained_above * TRAINED_TIMESTEPS
    return OpenRequest(
        model=served.name,
        family=card.family,
        model_sha256=card.model_sha256,
        vocabulary_sha256=card.vocabulary_sha256,
        vocab_size=card.vocab_size,
        prompt_ids=(config.stop_ids[0] if config.bos_token_id is None else config.bos_token_id,),
        noise_seed=0,
        timesteps=tuple(t for t in range(TRAINED_TIMESTEPS, 0, -1) if t > lowest),
        block_size=min(config.block_size, card.max_block_size),
        max_blocks=1,
        simplex_value=config.simplex_value,
        self_conditioning="own",
        logits_format=card.logits_formats.formats[0],
        speculation=0,
        patience=0,
    )


def _rows_of_each_kind(lane: Lane, request: OpenRequest, slot: int) -> Iterator[Row]:
    """The first row of each kind, from the highest timestep down: experts are kinds of their own."""
    seen: set[Hashable] = set()
    for step in range(len(request.timesteps)):
        row = Row(slot, request, BlockState(StepPosition(step, 0, step)))
        if (kind := lane.kind(row)) not in seen:
            seen.add(kind)
            yield row


def _checked(logits: Tensor, served: ServedModel) -> Tensor:
    what = None if all(finite_rows(logits)) else "logits that are not finite"
    if bool((logits.amax(-1) == logits.amin(-1)).all()):
        what = "every token the same logit"
    if what:
        raise ModelBroken(
            f"the model {served.name} is broken: it returns {what}; try precision float32 or another device, or "
            "copy or train the checkpoint again",
            parameter="precision",
        )
    return logits
