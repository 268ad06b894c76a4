"""What the holder of a key may do, and that the service asks."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from core_server.access import callers as callers_module
from core_server.access.callers import Callers, KeyHolder, tokens_charged
from core_server.access.keys import READ_AGAIN_S, KeyReader, create_key, revoke_key
from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.service import _AgentStream
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import (
    CoreError,
    InsecureLine,
    InvalidParameter,
    KeyRefused,
    SessionLimitReached,
    TimestepLimitReached,
    TokenLimitReached,
)
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import Start, ending, eventually, open_request

PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3, stop=0.4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    shown = [1000.0]
    monkeypatch.setattr(callers_module.time, "monotonic", lambda: shown[0])
    return shown


def holder(file: Path, **limits: int) -> KeyHolder:
    key, _ = create_key(file, "alice", **limits)
    return Callers(KeyReader(file)).identify([f"Bearer {key}"])


def test_sessions_are_counted_per_key_and_given_back(file: Path) -> None:
    alice, bob = create_key(file, "alice", max_sessions=2)[0], create_key(file, "bob", max_sessions=1)[0]
    callers = Callers(KeyReader(file))
    with ExitStack() as stack:
        stack.enter_context(callers.identify([f"Bearer {alice}"]).session())
        stack.enter_context(callers.identify([f"Bearer {alice}"]).session())
        with pytest.raises(SessionLimitReached, match="limit of 2"):
            stack.enter_context(callers.identify([f"Bearer {alice}"]).session())
        stack.enter_context(callers.identify([f"Bearer {bob}"]).session())
    with callers.identify([f"Bearer {alice}"]).session():
        pass


@pytest.mark.parametrize(("max_sessions", "share"), [(1, 1), (5, 3), (16, 8)])
def test_a_key_without_a_limit_takes_half_of_the_sessions_where_there_are_others(
    file: Path, max_sessions: int, share: int, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, reader = create_key(file, "alice")[0], KeyReader(file)
    callers = Callers(reader, max_sessions)

    def taken(key: str) -> int:
        with ExitStack() as stack, suppress(SessionLimitReached):
            for count in range(max_sessions):
                stack.enter_context(callers.identify([f"Bearer {key}"]).session())
                taken = count + 1
        return taken

    assert taken(alice) == max_sessions, "it is the only one"
    many = create_key(file, "many", max_sessions=max_sessions)[0]
    now[0] += READ_AGAIN_S
    assert (taken(alice), taken(many)) == (share, max_sessions)


async def test_of_two_keys_none_takes_all_sessions(served: LoadedModel, start: Start, file: Path) -> None:
    alice, bob = create_key(file, "alice")[0], create_key(file, "bob")[0]
    _, agent = await start(served, keys=file, max_sessions=2)
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    authorizations = [(("authorization", f"Bearer {key}"),) for key in (alice, alice, bob)]
    calls = [agent.stub.Collaborate(timeout=10, metadata=metadata) for metadata in authorizations]
    for call in calls:
        await call.write(opening)
        if call is not calls[1]:
            assert (await call.read()).opened.session_id
        else:
            assert (await ending(call)).code == SessionLimitReached.code
    for call in (calls[0], calls[2]):
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        assert (await ending(call)).status is grpc.StatusCode.OK


def test_tokens_fill_up_within_a_minute_and_a_debt_delays_the_next_answer(file: Path, now: list[float]) -> None:
    alice = holder(file, tokens_per_minute=60)
    with alice.session():
        alice.count(59)
    with alice.session():
        alice.count(61)  # an answer in progress is not cut off
    with pytest.raises(TokenLimitReached, match="limit of 60 tokens a minute; ask again in 61 s"), alice.session():
        pass
    now[0] += 60.0
    with pytest.raises(TokenLimitReached, match="in 1 s"), alice.session():
        pass
    now[0] += 1.0
    with alice.session():
        alice.count(1)
    now[0] += 3600.0
    with alice.session():
        alice.count(60)  # however long it was silent, a minute's tokens are all it has
    with pytest.raises(TokenLimitReached), alice.session():
        pass


def test_an_answer_that_broke_may_go_on_beyond_the_limit_once(file: Path, now: list[float]) -> None:
    alice = holder(file, tokens_per_minute=60)
    with suppress(ConnectionError), alice.session():
        alice.count(90)
        raise ConnectionError
    with alice.session():
        alice.count(5)
    with pytest.raises(TokenLimitReached), alice.session():
        pass


def test_an_answer_that_breaks_again_and_again_is_over_at_twice_the_limit(file: Path, now: list[float]) -> None:
    alice, admitted = holder(file, tokens_per_minute=60), 0
    for _ in range(9):
        with suppress(ConnectionError, TokenLimitReached), alice.session():
            admitted += 1
            alice.count(30)
            raise ConnectionError
    assert admitted == 4


def test_an_answer_that_broke_long_ago_goes_on_no_more(file: Path, now: list[float]) -> None:
    alice = holder(file, tokens_per_minute=60)
    with suppress(ConnectionError), alice.session():
        alice.count(119 + 61)
        raise ConnectionError
    now[0] += 61.0
    with pytest.raises(TokenLimitReached), alice.session():
        pass


def test_timesteps_have_a_limit_that_fills_up_within_a_minute(file: Path, now: list[float]) -> None:
    alice = holder(file, timesteps_per_minute=60, tokens_per_minute=1000)
    with alice.session():
        for step in range(90):
            alice.count(8, step)
    with pytest.raises(TimestepLimitReached, match="60 timesteps a minute; ask again in 31 s"), alice.session():
        pass
    now[0] += 31.0
    with alice.session():
        pass


def test_of_two_limits_the_one_that_takes_longer_is_told(file: Path, now: list[float]) -> None:
    alice = holder(file, timesteps_per_minute=2, tokens_per_minute=60)
    with alice.session():
        alice.count(120), alice.count(0, 1)
    with pytest.raises(TokenLimitReached, match="in 61 s"), alice.session():
        pass


def test_an_answer_that_broke_goes_on_beyond_both_limits(file: Path, now: list[float]) -> None:
    alice = holder(file, timesteps_per_minute=2, tokens_per_minute=60)
    with suppress(ConnectionError), alice.session():
        alice.count(60), alice.count(0, 1)
        raise ConnectionError
    with alice.session():
        pass
    with pytest.raises(TokenLimitReached), alice.session():
        pass


@pytest.mark.parametrize(("timesteps", "blocks"), [(1, 1), (25, 1), (26, 2), (1000, 40)])
def test_a_block_is_charged_once_for_every_25_timesteps(timesteps: int, blocks: int) -> None:
    assert sum(tokens_charged(8, step) for step in range(timesteps)) == 8 * blocks


def test_a_revoked_key_opens_nothing_even_where_its_call_had_begun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = holder(file)
    monkeypatch.setattr("core_server.access.keys.READ_AGAIN_S", 0.0)
    revoke_key(file, "alice")
    with pytest.raises(KeyRefused), alice.session():
        pass


def test_an_authorization_that_is_not_one_bearer_key_is_refused(file: Path) -> None:
    key, _ = create_key(file, "alice")
    callers = Callers(KeyReader(file))
    for given in ([], [key], [f"Basic {key}"], [f"bearer {key}"], [f"Bearer {key}"] * 2, [f"Bearer {key}".encode()]):
        with pytest.raises(KeyRefused):
            callers.identify(given)
    assert callers.identify([f"Bearer {key}"])


async def test_every_block_counts_the_last_one_too(served: LoadedModel, start: Start, file: Path) -> None:
    """An agent commits all blocks but the last, so a block is counted when it begins."""
    key, _ = create_key(file, "alice", tokens_per_minute=10)
    _, agent = await start(served, keys=file)
    metadata = (("authorization", f"Bearer {key}"),)
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    ends = []
    for _ in range(3):  # blocks of eight that are never committed
        call = agent.stub.Collaborate(timeout=30, metadata=metadata)
        await call.write(opening)
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        ends.append(await ending(call))
    assert [end.status for end in ends[:2]] == [grpc.StatusCode.OK] * 2
    assert (ends[2].status, ends[2].code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, TokenLimitReached.code)


async def test_no_more_streams_get_in_at_once_than_there_are_tokens_for(
    served: LoadedModel, start: Start, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is counted before it is told that it is open."""
    key, _ = create_key(file, "alice", tokens_per_minute=20)
    server, agent = await start(served, keys=file)
    write, may_go_on = _AgentStream.write, asyncio.Event()

    async def write_when_let(stream: _AgentStream, message: pb.CollaborateResponse) -> None:
        await may_go_on.wait()
        await write(stream, message)

    monkeypatch.setattr(_AgentStream, "write", write_when_let)
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    calls = [agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),)) for _ in range(50)]
    for call in calls:
        await call.write(opening)
    rejected = server.observation.metrics.rejected
    await eventually(lambda: server.sessions_active + rejected[TokenLimitReached.code] == 50)
    assert server.sessions_active == 3, "of eight tokens each"
    may_go_on.set()
    for call in calls:
        call.cancel()
    await eventually(lambda: server.sessions_active == 0)


async def test_a_commit_counts_the_block_that_follows(served: LoadedModel, start: Start, file: Path) -> None:
    key, _ = create_key(file, "alice", tokens_per_minute=15)
    server, agent = await start(served, keys=file)
    call = agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),))
    await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    await call.read(), await call.read()
    await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8, is_commit=True)))
    assert (await call.read()).block_logits.block == 1, "the answer goes on although the limit is passed"
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    assert (await ending(call)).status is grpc.StatusCode.OK
    await eventually(lambda: server.sessions_active == 0)
    again = agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),))
    await again.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    assert (await ending(again)).code == TokenLimitReached.code


@pytest.mark.parametrize(
    ("limits", "refused"),
    [({"timesteps_per_minute": 20}, TimestepLimitReached), ({"tokens_per_minute": 12}, TokenLimitReached)],
)
async def test_26_timesteps_of_one_block_reach_a_limit(
    served: LoadedModel, start: Start, file: Path, limits: dict[str, int], refused: type[CoreError]
) -> None:
    key, _ = create_key(file, "alice", **limits)
    _, agent = await start(served, keys=file)
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, replace(PARAMS, steps=60))))
    call, again = (agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),)) for _ in range(2))
    await call.write(opening)
    for number in range(25):
        projected = pb.Projection(number=number, step=number, token_ids=[5] * 8)
        await call.write(pb.CollaborateRequest(projection=projected))
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    assert (await ending(call)).status is grpc.StatusCode.OK
    await again.write(opening)
    assert (await ending(again)).code == refused.code


async def test_a_refused_key_takes_no_session(served: LoadedModel, start: Start, file: Path) -> None:
    key, _ = create_key(file, "alice")
    server, agent = await start(served, keys=file, max_sessions=1)
    for _ in range(3):
        call = agent.stub.Collaborate(timeout=30)
        end = await ending(call)
        assert (end.status, end.code) == (grpc.StatusCode.UNAUTHENTICATED, KeyRefused.code)
    assert server.sessions_active == 0
    assert server.observation.metrics.rejected[KeyRefused.code] == 3
    held = agent.stub.Collaborate(timeout=30, metadata=(("authorization", f"Bearer {key}"),))
    await held.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    assert (await held.read()).opened.session_id
    held.cancel()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "core.example.org"])  # noqa: S104
def test_keys_are_not_taken_from_the_network_in_the_clear(host: str) -> None:
    with pytest.raises(InsecureLine, match="set a TLS certificate"):
        ServerConfig({}, host=host, keys=Path("keys.json"))
    ServerConfig({}, host=host, keys=Path("keys.json"), tls_certificate=Path("a"), tls_key=Path("b"))
    ServerConfig({}, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_keys_are_taken_from_this_machine_without_tls(host: str) -> None:
    assert ServerConfig({}, host=host, keys=Path("keys.json")).keys


def test_certificates_of_agents_take_tls() -> None:
    with pytest.raises(InvalidParameter, match="client certificates require TLS"):
        ServerConfig({}, client_ca=Path("ca.pem"))
