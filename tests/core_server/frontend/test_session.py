"""The contract of one stream, message by message."""

from __future__ import annotations

import pytest

from core_server.catalogue.engine_messages import Advance, Begin, End
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.session import CoreSession
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.errors import ProtocolViolation
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import OpenRequest
from tests.core_server.conftest import open_request

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=3, stop=0.4)
TOKENS = (5, 6, 7, 8, 9, 10, 11, 12)


@pytest.fixture
def request_to_serve(served: LoadedModel) -> OpenRequest:
    return open_request(served, PARAMS)


@pytest.fixture
def session(served: LoadedModel, request_to_serve: OpenRequest) -> CoreSession:
    return CoreSession(7, request_to_serve, served.served)


def projection(number: int, block: int, step: int, *, is_commit: bool = False) -> pb.Projection:
    return pb.Projection(number=number, block=block, step=step, token_ids=TOKENS, is_commit=is_commit)


def test_each_message_becomes_a_command(session: CoreSession, request_to_serve: OpenRequest) -> None:
    assert session.begin("key:abc") == Begin(7, "core", request_to_serve, "key:abc")
    assert session.advance(projection(0, 0, 0)) == Advance(7, ProjectedTokens(TOKENS), is_commit=False)
    several = pb.Projection(number=1, block=0, step=1, token_ids=(4, *TOKENS), counts=(2, *[1] * 7))
    expected = ProjectedTokens((4, *TOKENS), (2, 1, 1, 1, 1, 1, 1, 1))
    assert session.advance(several) == Advance(7, expected, is_commit=False)
    assert session.end() == End(7)


def test_a_block_may_end_at_any_timestep(session: CoreSession) -> None:
    session.advance(projection(0, 0, 0, is_commit=True))
    assert session.due == StepPosition(1, 1, 0)


def test_the_last_timestep_of_a_block_needs_a_commit(session: CoreSession) -> None:
    session.advance(projection(0, 0, 0))
    session.advance(projection(1, 0, 1))
    with pytest.raises(ProtocolViolation, match="does not commit it"):
        session.advance(projection(2, 0, 2))


def test_nothing_follows_the_last_block(session: CoreSession) -> None:
    session.advance(projection(0, 0, 0, is_commit=True))
    with pytest.raises(ProtocolViolation, match="last of 2 blocks"):
        session.advance(projection(1, 1, 0, is_commit=True))


def test_a_projection_is_answered_once(session: CoreSession) -> None:
    session.advance(projection(0, 0, 0))
    with pytest.raises(ProtocolViolation, match="number=1"):
        session.advance(projection(0, 0, 0))
