from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytest.importorskip("ray.serve")

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from core_server.access.keys import READ_AGAIN_S, create_key, revoke_key
from core_server.access.scopes import SCOPE_KEY
from core_server.catalogue.served_model import ServedModels
from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.service import SERVICE_NAME
from core_server.frontend.session import CoreSession
from core_server.scale.proxy import proxy_config
from core_server.scale.replica import CoreReplica
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.projection import StepPosition
from ssd2.errors import InsecureLine, InvalidParameter
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import MAX_MESSAGE_BYTES, commit_to_proto, open_to_proto
from tests.core_server.conftest import RawAgent, decode_alone, ending, eventually, open_request
from tests.core_server.scale.conftest import Proxy, ServeHere
from tests.end_to_end.certificates import certificates

PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3, stop=0.4)
PORT = 50_967


def opening(served: LoadedModel) -> pb.CollaborateRequest:
    return pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))


async def test_tokens_behind_serve_are_those_of_one_process(served: LoadedModel, proxy: Proxy) -> None:
    seeds = [Seeds.reproducible(number) for number in range(2)]
    async with proxy() as (_, agent):
        answers = await asyncio.gather(*(agent.decode(served, PARAMS, pair) for pair in seeds))
    assert answers == [decode_alone(served, PARAMS, pair) for pair in seeds]
    assert answers[0] != answers[1]


async def test_a_full_replica_says_so_with_its_own_error_and_no_message_before_it(
    served: LoadedModel, proxy: Proxy, replica: CoreReplica
) -> None:
    async with proxy() as (_, agent):
        held = [await agent.open(open_request(served, PARAMS)) for _ in range(2)]
        call = await agent.send(opening(served))
        with pytest.raises(grpc.aio.AioRpcError):  # and no message: that which brings the status goes to nobody
            await call.read()
        end = await ending(call)
        assert (end.status, end.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "core_busy")
        assert end.details.startswith("the core is at its limit of 2 answers")
        await replica.check_health()  # or Serve would replace it for being full
        for call, _ in held:
            call.cancel()


async def test_an_agent_that_leaves_gives_its_slot_back(
    served: LoadedModel, proxy: Proxy, replica: CoreReplica
) -> None:
    async with proxy() as (_, agent):
        call, _ = await agent.open(open_request(served, PARAMS))
        assert replica._service.sessions_active == 1
        call.cancel()
        await eventually(lambda: replica._service.sessions_active == 0)


async def test_a_card_that_there_is_not_is_refused_with_the_list_of_what_there_is(proxy: Proxy) -> None:
    async with proxy() as (_, agent):
        assert (await agent.stub.GetModelCard(pb.GetModelCardRequest())).model == "core"
        with pytest.raises(grpc.aio.AioRpcError, match=r"there are: core \(ssd-2\)") as refused:
            await agent.stub.GetModelCard(pb.GetModelCardRequest(model="another"))
        assert dict(refused.value.trailing_metadata())["slingshot-error-code"] == "model_mismatch"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (BackPressureError(7, 7), grpc.StatusCode.RESOURCE_EXHAUSTED, "core_busy"),
        (RayActorError("node 192.0.2.7, pid 12"), grpc.StatusCode.UNAVAILABLE, "engine_lost"),
        (ValueError("secret insides"), grpc.StatusCode.UNAVAILABLE, "engine_lost"),
    ],
    ids=["full", "dead", "unforeseen"],
)
async def test_what_serve_says_of_its_insides_becomes_an_error_that_agents_know(
    served: LoadedModel, proxy: Proxy, fault: Exception, status: grpc.StatusCode, code: str
) -> None:
    async with proxy() as (serve, agent):
        serve.fault = fault
        ends = [await ending(await agent.send(opening(served)))]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.stub.GetModelCard(pb.GetModelCardRequest())
        assert refused.value.code() is status
    for end in ends:
        assert (end.status, end.code) == (status, code)
        assert not any(word in f"{end.details}{refused.value.details()}" for word in ("192", "pid", "secret", "queue"))


async def test_a_failure_inside_the_service_stays_as_the_service_tells_it(
    served: LoadedModel, proxy: Proxy, replica: CoreReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedModels, "find", fail)
    async with proxy() as (_, agent):
        await assert_tells_nothing(agent, opening(served))
    assert replica._service._observation.metrics.rejected["internal"] == 2


async def test_a_failure_of_the_proxy_is_told_to_nobody_and_its_kind_is_logged(
    served: LoadedModel, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ServeHere, "_card", fail)
    monkeypatch.setattr(ServeHere, "_stream", fail)
    async with proxy() as (_, agent):
        await assert_tells_nothing(agent, opening(served))
    assert caplog.text.count("a call failed with ValueError") == 2
    assert "secret" not in caplog.text


def fail(*_: object) -> None:
    raise ValueError("secret insides")


async def assert_tells_nothing(agent: RawAgent, message: pb.CollaborateRequest) -> None:
    """Either call ends with the one text for whatever is not foreseen."""
    stream = agent.stub.Collaborate(timeout=30)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has failed before it was told anything
        await stream.write(message)
    for call in (stream, agent.stub.GetModelCard(pb.GetModelCardRequest())):
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert (await call.details()).startswith("the core failed on this answer")
        assert "slingshot-error-code" not in dict(await call.trailing_metadata())


async def healthy(channel: grpc.aio.Channel) -> bool:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_health_says_what_serve_says_of_itself(proxy: Proxy) -> None:
    async with proxy() as (serve, agent):
        assert await healthy(agent.channel)
        serve.is_healthy = False
        assert not await healthy(agent.channel)


@pytest.fixture
def secured(tmp_path: Path, on_head: Callable[[bool], None]) -> dict[str, object]:
    """Variables of a proxy with TLS and keys."""
    on_head(True)
    files = certificates(tmp_path)
    create_key(tmp_path / "keys.json", "somebody")
    return {
        "PORT": PORT,
        "TLS_CERTIFICATE": files.certificate,
        "TLS_KEY": files.key,
        "KEYS": tmp_path / "keys.json",
    }


def encrypted(tmp_path: Path) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.secure_channel(f"localhost:{PORT}", credentials, options=options)


class KeyedAgent(RawAgent):
    """One that shows a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        super().__init__(channel, PORT)
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def send(self, *messages: pb.CollaborateRequest) -> grpc.aio.StreamStreamCall:
        call = self.stub.Collaborate(timeout=30, metadata=self._metadata)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it was refused before it had said anything
            for message in messages:
                await call.write(message)
        return call


async def test_without_a_key_nothing_answers_but_health(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    async with proxy(**secured), encrypted(tmp_path) as channel:
        assert await healthy(channel)
        stub = pb_grpc.CollaborationServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer sk-0-0"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetModelCard(pb.GetModelCardRequest(), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            call = stub.Collaborate(metadata=metadata)
            assert (await ending(call)).code == "key_refused"


async def test_who_has_no_key_is_refused_before_anything_is_read(
    proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    async with proxy(**secured), encrypted(tmp_path) as channel, asyncio.timeout(10):
        for method in ("GetModelCard", "Collaborate"):
            assert (await ending(channel.stream_stream(f"/{SERVICE_NAME}/{method}")())).code == "key_refused"


async def test_keys_go_no_further_than_the_proxy(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "trusting")
    metadata = (("authorization", f"Bearer {key}"), ("traceparent", f"00-{7:032x}-{7:016x}-01"))
    async with proxy(**secured) as (serve, _), encrypted(tmp_path) as channel:
        stub = pb_grpc.CollaborationServiceStub(channel)
        assert (await stub.GetModelCard(pb.GetModelCardRequest(), metadata=metadata)).model == "core"
        call = stub.Collaborate(metadata=metadata)
        await call.write(opening(served))
        assert (await call.read()).opened.session_id
        call.cancel()
    assert len(serve.metadata) == 2
    for handed_on in serve.metadata:
        assert "authorization" not in handed_on
        assert handed_on["traceparent"] == metadata[1][1]


async def test_a_replica_is_told_whose_prompt_it_is_by_the_proxy_and_by_no_agent(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    begin = CoreSession.begin
    monkeypatch.setattr(CoreSession, "begin", lambda session, scope: begun.append(scope) or begin(session, scope))
    key, entry = create_key(tmp_path / "keys.json", "curious")
    metadata = (("authorization", f"Bearer {key}"), (SCOPE_KEY, "key:somebody"))
    async with proxy(**secured), encrypted(tmp_path) as channel:
        for _ in range(2):
            call = pb_grpc.CollaborationServiceStub(channel).Collaborate(metadata=metadata)
            await call.write(opening(served))
            assert (await call.read()).opened.session_id
    assert begun == [f"key:{entry.id}"] * 2


async def test_without_keys_a_replica_is_told_the_connection(
    served: LoadedModel, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    begin = CoreSession.begin
    monkeypatch.setattr(CoreSession, "begin", lambda session, scope: begun.append(scope) or begin(session, scope))
    async with proxy() as (_, agent):
        for metadata in ((), ((SCOPE_KEY, "ipv4:192.0.2.7:1"),)):
            call = agent.stub.Collaborate(metadata=metadata)
            await call.write(opening(served))
            assert (await call.read()).opened.session_id
    first, second = begun
    assert first == second
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", first)


async def test_the_port_that_serve_opens_answers_nothing_but_health_where_there_is_tls(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "careless")
    async with proxy(**secured) as (_, plain):
        assert await healthy(plain.channel)
        with pytest.raises(grpc.aio.AioRpcError, match="not encrypted"):
            await plain.stub.GetModelCard(pb.GetModelCardRequest(), metadata=(("authorization", f"Bearer {key}"),))
        assert (await ending(await plain.send(opening(served)))).code == "protocol_violation"


async def test_a_key_s_limits_hold_and_a_revoked_one_ends_its_answers(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "one at a time", max_sessions=1)
    async with proxy(**secured), encrypted(tmp_path) as channel:
        agent = KeyedAgent(channel, key)
        assert await agent.decode(served, PARAMS, Seeds.reproducible(1))
        held, _ = await agent.open(open_request(served, PARAMS))
        assert (await ending(await agent.send(opening(served)))).code == "session_limit_reached"
        revoke_key(tmp_path / "keys.json", "one at a time")
        async with asyncio.timeout(5 * READ_AGAIN_S):
            assert (await ending(held)).code == "key_refused"


async def test_tokens_are_counted_by_the_block(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "16 a minute", tokens_per_minute=16)
    async with proxy(**secured), encrypted(tmp_path) as channel:
        agent = KeyedAgent(channel, key)
        assert len(await agent.decode(served, PARAMS, Seeds.reproducible(1))) == 24
        end = await ending(await agent.send(opening(served)))
    assert end.code == "token_limit_reached"


async def test_timesteps_are_counted_as_they_are_asked_for(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "two a minute", timesteps_per_minute=2)
    async with proxy(**secured), encrypted(tmp_path) as channel:
        agent = KeyedAgent(channel, key)
        call, _ = await agent.open(open_request(served, PARAMS))
        for number in range(2):
            projected = pb.Projection(number=number, step=number, token_ids=[5] * 8)
            await call.write(pb.CollaborateRequest(projection=projected))
            await call.read()
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        assert (await ending(call)).status is grpc.StatusCode.OK
        assert (await ending(await agent.send(opening(served)))).code == "timestep_limit_reached"


async def test_an_open_that_a_replica_refuses_costs_its_key_nothing(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "16 a minute", tokens_per_minute=16)
    too_long = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS, block_size=4_000_000_000)))
    async with proxy(**secured), encrypted(tmp_path) as channel:
        agent = KeyedAgent(channel, key)
        assert [(await ending(await agent.send(too_long))).code for _ in range(3)] == ["invalid_parameter"] * 3
        assert len(await agent.decode(served, PARAMS, Seeds.reproducible(1))) == 24


async def test_an_agent_that_asks_until_there_is_room_pays_for_one_answer(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path, replica: CoreReplica
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "16 a minute", tokens_per_minute=16)
    other, _ = create_key(tmp_path / "keys.json", "full house")
    async with proxy(**secured), encrypted(tmp_path) as channel:
        held = [(await KeyedAgent(channel, other).open(open_request(served, PARAMS)))[0] for _ in range(2)]
        agent = KeyedAgent(channel, key)
        assert [(await ending(await agent.send(opening(served)))).code for _ in range(3)] == ["core_busy"] * 3
        for call in held:
            call.cancel()
        await eventually(lambda: replica._service.sessions_active == 0)
        assert len(await agent.decode(served, PARAMS, Seeds.reproducible(1))) == 24


async def test_a_commit_costs_its_key_a_block_whatever_its_length(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "24 a minute", tokens_per_minute=24)
    commit = pb.CollaborateRequest(projection=commit_to_proto(StepPosition(0, 0, 0), [7] * 10_000))
    async with proxy(**secured), encrypted(tmp_path) as channel:
        agent = KeyedAgent(channel, key)
        call, _ = await agent.open(open_request(served, PARAMS))
        await call.write(commit)
        assert (await ending(call)).code == "block_shape_mismatch"
        assert len(await agent.decode(served, PARAMS, Seeds.reproducible(1))) == 24


async def test_an_agent_that_reads_nothing_is_given_up_and_its_key_is_free_again(
    served: LoadedModel,
    proxy: Proxy,
    secured: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = pb.CollaborateResponse(block_logits=pb.BlockLogits(data=bytes(2**20))).SerializeToString()

    async def endless(*_: object) -> AsyncIterator[bytes]:
        while True:
            yield message

    monkeypatch.setattr(ServeHere, "_stream", endless)
    key, _ = create_key(tmp_path / "keys.json", "one at a time", max_sessions=1)
    async with proxy(**secured, ANSWER_TIMEOUT_S=2) as _, encrypted(tmp_path) as channel, asyncio.timeout(20):
        frozen = await KeyedAgent(channel, key).send(opening(served))
        await asyncio.sleep(0.2)
        assert (await ending(await KeyedAgent(channel, key).send(opening(served)))).code == "session_limit_reached"
        await asyncio.sleep(3)
        another = await KeyedAgent(channel, key).send(opening(served))
        assert (await another.read()).block_logits.data
        assert (await ending(frozen)).code == "core_timeout"


async def test_an_agent_that_does_not_say_which_card_it_wants_is_given_up(proxy: Proxy) -> None:
    async with proxy(ANSWER_TIMEOUT_S=0.2) as (_, agent), asyncio.timeout(10):
        call = agent.channel.stream_stream(f"/{SERVICE_NAME}/GetModelCard")()
        assert (await ending(call)).code == "core_timeout"


async def test_bytes_that_are_no_message_are_the_replica_s_to_refuse(
    proxy: Proxy, secured: dict[str, object], tmp_path: Path
) -> None:
    key, _ = create_key(tmp_path / "keys.json", "scribbler")
    async with proxy(**secured), encrypted(tmp_path) as channel:
        ask = channel.stream_stream("/slingshot.collaboration.v1.CollaborationService/Collaborate")
        call = ask(metadata=(("authorization", f"Bearer {key}"),))
        await call.write(b"\xff\xff\xff")
        assert (await ending(call)).code == "protocol_violation"


async def test_keys_are_refused_where_there_may_be_another_proxy(
    proxy: Proxy, secured: dict[str, object], on_head: Callable[[bool], None]
) -> None:
    on_head(False)
    with pytest.raises(InvalidParameter, match="proxy_location: HeadOnly"):
        async with proxy(**secured):
            pass


def test_keys_take_tls() -> None:
    with pytest.raises(InsecureLine, match="keys would cross the network"):
        proxy_config({"SLINGSHOT_PROXY_KEYS": "keys.json"})


@pytest.mark.parametrize("name", ["SLINGSHOT_PROXY_PORT", "SLINGSHOT_PROXY_ANSWER_TIMEOUT_S"])
def test_a_variable_that_is_no_number_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"{name} is 'https'; give a (whole )?number"):
        proxy_config({name: "https"})


def test_a_variable_that_the_proxy_does_not_read_is_named(caplog: pytest.LogCaptureFixture) -> None:
    proxy_config({"SLINGSHOT_PROXY_TSL_KEY": "core.key", "SLINGSHOT_CORE": "for an agent", "SLINGSHOT_PROXY_PORT": "1"})
    (said,) = caplog.messages
    assert said.startswith("SLINGSHOT_PROXY_TSL_KEY is not a setting of the proxy and has no effect; it reads")


def test_without_variables_there_are_no_keys_and_no_tls() -> None:
    config = proxy_config({})
    assert (config.keys, config.tls_certificate, config.port) == (None, None, 50_051)
    assert config.answer_timeout_s == ServerConfig.answer_timeout_s


async def test_no_key_is_in_any_log(
    served: LoadedModel, proxy: Proxy, secured: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, _ = create_key(tmp_path / "keys.json", "sentinel")
    async with proxy(**secured) as (serve, _), encrypted(tmp_path) as channel:
        await KeyedAgent(channel, key).decode(served, PARAMS, Seeds.reproducible(1))
        serve.fault = RayActorError("gone")
        await ending(await KeyedAgent(channel, key).send(opening(served)))
    assert "Serve ended a call" in caplog.text
    assert key not in caplog.text
