from __future__ import annotations

import pytest
import torch

from core_server.served_model import ServedModel
from core_server.session import CoreSession
from ssd2.errors import ProtocolViolation
from ssd2.logits_format import FLOAT16
from ssd2.models.denoiser import Denoiser
from ssd2.params import DecodingParams
from ssd2.sampler import LogitsRequest, noised_simplex
from ssd2.simplex import ids_to_simplex
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import StepPosition, commit_to_proto, logits_to_proto, projection_to_proto
from tests.conftest import tiny_model
from tests.core_server.conftest import PROMPT, open_request, serve_in_memory

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=3, self_conditioning="projection")
TOKENS = [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.fixture
def session(served: ServedModel) -> CoreSession:
    return CoreSession(open_request(served, PARAMS), served)


def projection(number: int, block: int, step: int, *, is_commit: bool = False) -> pb.Projection:
    return pb.Projection(number=number, block=block, step=step, token_ids=TOKENS, is_commit=is_commit)


def test_a_block_may_end_at_any_timestep(served: ServedModel) -> None:
    """After an early commit, the next block is what it would be behind those tokens in any decode."""
    t = 900  # at T itself, where alpha_bar is 0, what is left of the committed block would not show
    session = CoreSession(open_request(served, PARAMS, timesteps=(t, 700, 500)), served)
    session.first_logits()
    committed = session.answer(commit_to_proto(StepPosition(0, 0, 0), TOKENS))

    model = served.checkpoint.model
    x_t = noised_simplex(None, [7], 1, t, PARAMS, model.config.vocab_size)
    logits = Denoiser(model, [PROMPT], "projection").logits(
        LogitsRequest(1, 0, t, x_t, None, None, torch.tensor([TOKENS]))
    )
    assert committed == logits_to_proto(StepPosition(1, 1, 0), logits[0], FLOAT16)
    assert session.due == StepPosition(1, 1, 0)


def test_a_projection_shapes_the_next_timestep(served: ServedModel, session: CoreSession) -> None:
    """Its x_t and, with this self-conditioning, what the model is fed back, come from the projection."""
    session.first_logits()
    x0_hat = ids_to_simplex(torch.tensor([TOKENS]), 1782)
    answered = session.answer(projection_to_proto(StepPosition(0, 0, 0), x0_hat[0]))

    model, t = served.checkpoint.model, PARAMS.timesteps[1]
    x_t = noised_simplex(x0_hat, [7], 0, t, PARAMS, model.config.vocab_size)
    request = LogitsRequest(0, 1, t, x_t, x0_hat, None, torch.empty(1, 0, dtype=torch.int64))
    logits = Denoiser(model, [PROMPT], "projection").logits(request)
    assert answered == logits_to_proto(StepPosition(1, 0, 1), logits[0], FLOAT16)


def test_the_last_timestep_of_a_block_needs_a_commit(session: CoreSession) -> None:
    session.answer(projection(0, 0, 0))
    session.answer(projection(1, 0, 1))
    with pytest.raises(ProtocolViolation, match="no commit"):
        session.answer(projection(2, 0, 2))


def test_nothing_follows_the_last_block(session: CoreSession) -> None:
    session.answer(projection(0, 0, 0, is_commit=True))
    with pytest.raises(ProtocolViolation, match="last of 2 blocks"):
        session.answer(projection(1, 1, 0, is_commit=True))


def test_a_projection_is_answered_once(session: CoreSession) -> None:
    session.answer(projection(0, 0, 0))
    with pytest.raises(ProtocolViolation, match="number=1"):
        session.answer(projection(0, 0, 0))


def test_the_agents_simplex_value_is_used() -> None:
    served = serve_in_memory(tiny_model(5))
    params = DecodingParams(block_size=4, max_tokens=8, steps=2)
    by_value = {
        value: CoreSession(open_request(served, params, simplex_value=value), served).first_logits().data
        for value in (1.0, 5.0)
    }
    assert by_value[1.0] != by_value[5.0]
