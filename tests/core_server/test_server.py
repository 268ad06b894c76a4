from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server import server as server_module
from core_server.config import ServerConfig
from core_server.engines import Engines
from core_server.loaded_model import LoadedModel
from core_server.server import CoreServer
from core_server.service import SERVICE_NAME
from ssd2.errors import CoreStopping, InvalidParameter
from ssd2.params import DecodingParams
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import MAX_REQUEST_BYTES
from tests.core_server.conftest import Start, ending, engine_in_this_process, eventually, open_request

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


async def test_nobody_who_watches_its_health_and_does_not_read_keeps_a_server_from_stopping(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, agent = await start(served, grace_s=0.1)
    monkeypatch.setattr(server_module, "HEALTH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(server._health, "enter_graceful_shutdown", asyncio.Event().wait)
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
        with pytest.raises(InvalidParameter, match="--port"):
            await second.start()
        await second.stop()


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
