from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend import health as health_module
from core_server.frontend import server as server_module
from core_server.frontend.engines import Engines
from core_server.frontend.server import CoreServer, serve, stop_signals
from core_server.frontend.service import SERVICE_NAME
from core_server.observability.observation import Observation
from core_server.observability.ops import create_app
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreLoading, CoreStopping, InvalidParameter, ModelBroken
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import MAX_REQUEST_BYTES, open_to_proto
from ssd2.wire.status_details import STATUS_DETAILS_KEY, details_from_bytes
from tests.core_server.conftest import RawAgent, Start, ending, engine_in_this_process, eventually, open_request

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", SERVICE_NAME])
async def test_health_says_when_the_server_stops(served: LoadedModel, start: Start, name: str) -> None:
    server, agent = await start(served, grace_s=0.3)
    health = health_pb2_grpc.HealthStub(agent.channel)
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await health.Check(request, timeout=5)).status == SERVING

    watch = health.Watch(request, timeout=10)
    assert (await watch.read()).status == SERVING
    stopping = asyncio.create_task(server.stop())
    assert (await watch.read()).status == NOT_SERVING
    await stopping


@asynccontextmanager
async def listening(observation: Observation) -> AsyncIterator[tuple[CoreServer, RawAgent]]:
    """A server that has no engines yet."""
    server = CoreServer(None, ServerConfig({}, grace_s=0.0), observation)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, RawAgent(channel, port)
        await server.stop()


@pytest.mark.parametrize("name", ["", SERVICE_NAME])
async def test_health_and_ready_say_the_same_in_every_state(
    served: LoadedModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(health_module, "WATCH_INTERVAL_S", 0.01)
    observation, request = Observation(), health_pb2.HealthCheckRequest(service=name)
    engine = SimpleNamespace(is_gone=False, silence_s=0.0, broken_models=set(), models=(served.served,), alive=None)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(observation)), base_url="http://core")
    async with http as client, listening(observation) as (server, agent), asyncio.timeout(20):
        health = health_pb2_grpc.HealthStub(agent.channel)
        watch = health.Watch(request)
        watched = (await watch.read()).status

        async def told() -> tuple[int, str | None]:
            nonlocal watched
            ready = await client.get("/ready")
            status = (await health.Check(request)).status
            assert status == (SERVING if ready.status_code == 200 else NOT_SERVING)
            if status != watched:
                watched = (await watch.read()).status
            assert status == watched
            return ready.status_code, ready.json()["reason"]

        assert await told() == (503, "loading")
        server.open(Engines([engine]))  # type: ignore[list-item]
        assert await told() == (200, None)
        engine.silence_s = 16.0
        assert await told() == (503, "an engine has been silent for 16 s")
        engine.alive = SimpleNamespace(fault="the upstream is down")
        assert await told() == (503, "the upstream is down")
        engine.alive = None
        engine.silence_s = 0.0
        assert await told() == (200, None)
        engine.broken_models.add("core")
        assert await told() == (503, "broken models: core")
        engine.is_gone = True
        assert await told() == (503, "an engine has ended")
        engine.is_gone, engine.broken_models = False, set()
        assert await told() == (200, None)
        observation.readiness.is_draining = True
        assert await told() == (503, "draining")
        assert await watch.read() is grpc.aio.EOF


async def test_the_health_of_something_else_is_not_known(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    health, request = health_pb2_grpc.HealthStub(agent.channel), health_pb2.HealthCheckRequest(service="else")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health.Check(request)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(request)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_server_that_loads_tells_agents_so_and_when_to_ask_again(served: LoadedModel) -> None:
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    async with listening(Observation()) as (server, agent):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.stub.GetModelCard(pb.GetModelCardRequest(), timeout=5)
        metadata = dict(refused.value.trailing_metadata())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_from_bytes(metadata[STATUS_DETAILS_KEY]).retry_after_s == 1
        assert (await ending(await agent.send(opening))).code == CoreLoading.code
        assert server.observation.metrics.rejected[CoreLoading.code] == 2
        other = agent.channel.unary_unary("/somebody.Else/Call")
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await other(b"")
        async with engine_in_this_process(served, slots=16) as engine:
            server.open(Engines([engine]))
            assert (await agent.stub.GetModelCard(pb.GetModelCardRequest(), timeout=5)).model == "core"
            call, _ = await agent.open(open_request(served, PARAMS))
            call.cancel()
            await eventually(lambda: server.sessions_active == 0)


async def test_no_new_answer_is_taken_of_a_broken_model(served: LoadedModel) -> None:
    opening = pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS)))
    async with listening(Observation()) as (server, agent), engine_in_this_process(served, slots=16) as engine:
        server.open(Engines([engine]))
        engine.broken_models.add("core")
        refused = await ending(await agent.send(opening))
        assert (refused.status, refused.code) == (grpc.StatusCode.DATA_LOSS, ModelBroken.code)
        assert "the model core is broken" in refused.details
        assert server.observation.metrics.rejected[ModelBroken.code] == 1


async def test_an_answer_in_progress_has_the_grace_time(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, grace_s=10.0)
    call, _ = await agent.open(open_request(served, PARAMS))
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.05)
    await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8)))
    assert (await call.read()).block_logits.step == 1
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    assert (await ending(call)).status is grpc.StatusCode.OK
    async with asyncio.timeout(5):  # the grace time is not waited for where nobody needs it
        await stopping


async def test_an_answer_longer_than_the_grace_time_is_cut_and_its_agent_told_why(
    served: LoadedModel, start: Start
) -> None:
    server, agent = await start(served, grace_s=0.1)
    call, _ = await agent.open(open_request(served, PARAMS))
    async with asyncio.timeout(5):
        await server.stop()
        assert (await ending(call)).code == CoreStopping.code
    await eventually(lambda: server.sessions_active == 0)


async def test_a_health_watcher_that_reads_nothing_does_not_keep_a_server_from_stopping(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, agent = await start(served, grace_s=0.1)
    monkeypatch.setattr(server_module, "ABORT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(health_module, "WATCH_INTERVAL_S", 3600.0)  # as if it waited to be read
    watch = health_pb2_grpc.HealthStub(agent.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    call, _ = await agent.open(open_request(served, PARAMS))
    async with asyncio.timeout(5):
        await server.stop()
        assert (await ending(call)).code == CoreStopping.code


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_nobody_is_told_by_reflection_what_there_is(served: LoadedModel, start: Start, version: str) -> None:
    _, agent = await start(served)
    call = agent.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")(timeout=10)
    assert (await ending(call)).status is grpc.StatusCode.UNIMPLEMENTED


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("says", "changes", "settings"),
    [
        (b"", {"HANDSHAKE_TIMEOUT_S": 1}, {}),
        (HTTP2_PREFACE + EMPTY_SETTINGS, {"IDLE_TIMEOUT_S": 1}, {}),
        (HTTP2_PREFACE + EMPTY_SETTINGS, {}, {"session_timeout_s": 1.0}),
    ],
    ids=["silent", "without a call", "old"],
)
async def test_a_connection_that_is_not_used_ends(
    served: LoadedModel,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    says: bytes,
    changes: dict[str, int],
    settings: dict[str, float],
) -> None:
    for name, value in changes.items():
        monkeypatch.setattr(server_module, name, value)
    _, agent = await start(served, **settings)
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(says)
    async with asyncio.timeout(10):
        await reader.read()
    assert reader.at_eof()
    writer.close()
    call, _ = await agent.open(open_request(served, PARAMS))
    call.cancel()


async def test_a_port_in_use_is_refused(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    async with engine_in_this_process(served, slots=1) as engine:
        second = CoreServer(Engines([engine]), ServerConfig({}, port=agent.port, grace_s=0.0))
        with pytest.raises(InvalidParameter, match="choose another port"):
            await second.start()
        await second.stop()


async def test_a_port_in_use_is_told_before_an_engine_starts(
    served: LoadedModel, start: Start, core_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, agent = await start(served)
    monkeypatch.setattr(server_module, "running_engines", lambda _: pytest.fail("an engine was started"))
    with pytest.raises(InvalidParameter, match="choose another port"):
        await serve(ServerConfig({"core": core_folder}, port=agent.port), print)


def test_a_hangup_drains_unless_it_is_to_outlive_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert stop_signals() == [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` has it
        assert stop_signals() == [signal.SIGTERM, signal.SIGINT]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("size_bytes", "status"),
    [
        (MAX_REQUEST_BYTES, grpc.StatusCode.INVALID_ARGUMENT),  # read, and found to be no message
        (MAX_REQUEST_BYTES + 1, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_messages_are_taken_up_to_the_limit(
    served: LoadedModel, start: Start, size_bytes: int, status: grpc.StatusCode
) -> None:
    server, agent = await start(served)
    call = agent.channel.stream_stream(f"/{SERVICE_NAME}/Collaborate")()
    await call.write(b"\0" * size_bytes)
    assert (await ending(call)).status is status
    await eventually(lambda: server.sessions_active == 0)


async def test_metadata_is_taken_up_to_the_limit(served: LoadedModel, start: Start) -> None:
    _, agent = await start(served)
    for _ in range(20):  # between a soft and a hard limit, gRPC would refuse a share of the calls
        await agent.stub.GetModelCard(pb.GetModelCardRequest(), metadata=(("x", "y" * 15_500),), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await agent.stub.GetModelCard(pb.GetModelCardRequest(), metadata=(("x", "y" * 20_000),), timeout=5)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
