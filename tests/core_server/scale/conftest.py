"""Serve's gRPC server with a replica in this process: all that a cluster does but for its processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import grpc
import pytest

pytest.importorskip("ray.serve")

import ray
from ray.serve._private.grpc_util import get_grpc_response_status, gRPCGenericServer, set_grpc_code_and_details
from ray.serve._private.proxy_request_response import ResponseStatus
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from core_server.scale.proxy import add_to_proxy
from core_server.scale.replica import CoreReplica
from ssd2.wire.codec import MAX_MESSAGE_BYTES
from tests.core_server.conftest import RawAgent, engine_in_this_process


class ServeHere:
    """Hands calls on to a replica as Serve's proxy does.

    Attributes:
        fault: raised where Serve would find that its replica is gone or that it takes no more calls.
        is_healthy: what its health check says.
        metadata: of the calls that replicas were handed.
    """

    def __init__(self, replica: CoreReplica) -> None:
        self._replica = replica
        self.fault: Exception | None = None
        self.is_healthy = True
        self.metadata: list[dict[str, str]] = []

    def handler(self, service_method: str, streaming_type: object) -> Callable[..., Any]:
        return {"Healthz": self._health, "GetModelCard": self._card, "Collaborate": self._stream}[
            service_method.rpartition("/")[2]
        ]

    async def _health(self, _: bytes, context: Any) -> bytes:
        status = grpc.StatusCode.OK if self.is_healthy else grpc.StatusCode.UNAVAILABLE
        set_grpc_code_and_details(context, ResponseStatus(status, message="of Serve"))
        return b""

    async def _card(self, request: bytes, context: Any) -> bytes:
        frames = [frame async for frame in self._results(self._one(request, self._own(context)), context)]
        return frames[0] if frames else b""

    def _own(self, context: Any) -> RayServegRPCContext:
        """What goes to the replica with a call."""
        own = RayServegRPCContext(context)
        self.metadata.append(dict(own.invocation_metadata()))
        return own

    async def _one(self, request: bytes, own: RayServegRPCContext) -> AsyncIterator[Any]:
        yield own, await self._replica.GetModelCard(request, own)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        own = self._own(context)

        async def received() -> AsyncIterator[bytes]:
            async for message in requests:
                yield message

        frames: asyncio.Queue[Any] = asyncio.Queue()

        async def answer() -> None:
            async for frame in self._replica.Collaborate(gRPCInputStream(received()), own):
                frames.put_nowait(frame)
            frames.put_nowait(None)

        async def results() -> AsyncIterator[Any]:
            while frame := await frames.get():
                yield own, frame

        # In a context of its own, as in another process: who calls is known to the proxy alone.
        answering = asyncio.create_task(answer(), context=Context())
        try:
            async for data in self._results(results(), context):
                yield data
        finally:
            answering.cancel()

    async def _results(self, results: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:
        """A call's own context comes with a message alone; the rest is what Serve makes of an error."""
        status = ResponseStatus(grpc.StatusCode.OK)
        try:
            async for own, frame in results:
                if self.fault:
                    raise self.fault
                own._set_on_grpc_context(context)
                yield frame.SerializeToString()
        except Exception as error:
            status = get_grpc_response_status(error, None, "request-id")
        set_grpc_code_and_details(context, status)


class Ended:
    """What a replica is in the end."""


@pytest.fixture
async def replica(served: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CoreReplica]:
    """A replica whose engine is a thread, made and ended as Serve does."""

    @asynccontextmanager
    async def engines(config: ServerConfig) -> AsyncIterator[Engines]:
        async with engine_in_this_process(served, slots=config.max_sessions) as engine:
            yield Engines([engine])

    monkeypatch.setattr("core_server.scale.replica.running_engines", engines)
    one = CoreReplica.__new__(CoreReplica)
    await one.__init__(ServerConfig({}, max_sessions=2))  # type: ignore[misc]  # Serve awaits it too
    yield one
    await one.__del__()
    one.__class__ = Ended  # type: ignore[assignment]  # else Python calls it once more, and awaits nothing


Proxy = Callable[..., Any]


@pytest.fixture
def proxy(replica: CoreReplica, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """A proxy in this process: `async with proxy(KEYS=file) as (serve, agent)`; the agent is on its plain port."""

    @asynccontextmanager
    async def started(**variables: object) -> AsyncIterator[tuple[ServeHere, RawAgent]]:
        for name, value in variables.items():
            monkeypatch.setenv(f"SLINGSHOT_PROXY_{name}", str(value))
        serve = ServeHere(replica)
        server = gRPCGenericServer(serve.handler)
        port = server.add_insecure_port("127.0.0.1:0")
        add_to_proxy(object(), server)
        await server.start()
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield serve, RawAgent(channel, port)
        await server.stop(0)

    return started


@pytest.fixture
def on_head(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether this node is a cluster's head, which Ray is asked about where there are keys."""

    class Runtime:
        def get_node_id(self) -> str:
            return "here"

    def say(is_head: bool) -> None:
        resources = {"node:__internal_head__": 1.0} if is_head else {}
        monkeypatch.setattr(ray, "get_runtime_context", Runtime)
        monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "here", "Resources": resources}])

    return say
