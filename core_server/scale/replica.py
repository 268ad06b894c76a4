"""Replica: the service and engine of a server, on streams of Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import grpc
from ray.serve.grpc_util import RayServegRPCContext, gRPCInputStream

from core_server.access.scopes import SCOPE_KEY
from core_server.config import ServerConfig
from core_server.frontend.engines import running_engines
from core_server.frontend.server import observed
from core_server.frontend.service import CollaborationService
from core_server.observability.logs import start_log
from ssd2.errors import EngineLost, ModelBroken

EXIT_ENGINE_LOST = 1

_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """Bytes for the proxy, unchanged; Serve calls protobuf's method on a response."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        """Return the bytes."""
        return self.data


LAST_WORD = Frame(b"")
"""Carries a status to the proxy: Serve sends a call's context along with a message alone. No message of the protocol is
empty, and the proxy sends this one to nobody (`core_server.scale.proxy`)."""


class ReplicaCall:
    """Call on a replica, with the interface that the service uses."""

    def __init__(self, rpc_context: RayServegRPCContext) -> None:
        self._rpc_context = rpc_context

    def invocation_metadata(self) -> _Metadata:
        """Return the call's metadata."""
        return self._rpc_context.invocation_metadata()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: _Metadata = ()) -> NoReturn:
        """End the call with a status.

        Raises:
            grpc.aio.AbortError: always, as gRPC's own does.
        """
        self._rpc_context.set_code(code)
        self._rpc_context.set_details(details)
        self._rpc_context.set_trailing_metadata(list(trailing_metadata))  # type: ignore[arg-type]  # bytes do as well
        raise grpc.aio.AbortError


class ReplicaStream(ReplicaCall):
    """Streaming call on a replica."""

    def __init__(self, requests: gRPCInputStream[bytes], rpc_context: RayServegRPCContext) -> None:
        super().__init__(rpc_context)
        self._requests = requests
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(maxsize=1)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return nothing: the proxy knows who calls."""
        return {}

    def peer(self) -> str:
        """Return the scope of the answer, which the proxy sends."""
        scope = dict(self.invocation_metadata()).get(SCOPE_KEY, "")
        return scope if isinstance(scope, str) else ""

    async def read(self) -> object:
        """Return the next message's bytes, or gRPC's EOF."""
        return await anext(self._requests, grpc.aio.EOF)

    async def write(self, message: bytes) -> None:
        """Send a message, once the previous one is taken."""
        await self._frames.put(Frame(message))

    async def frames(self, service: CollaborationService) -> AsyncGenerator[Frame, None]:
        """Yield the service's messages until it ends or nobody listens."""
        answering = asyncio.create_task(self._answer(service))
        try:
            while frame := await self._frames.get():
                yield frame
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, service: CollaborationService) -> None:
        """Answer, then mark the end; once cancelled, send nothing, as nobody reads it."""
        try:
            await service.Collaborate(None, self)
        except grpc.aio.AbortError:
            await self._frames.put(LAST_WORD)
        await self._frames.put(None)


class CoreReplica:
    """Front end with its engine, in a process of Ray.

    Serve makes it, hands it calls, asks how it is and ends it.
    """

    async def __init__(self, config: ServerConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        """Start the engine and load the models.

        Raises:
            SlingshotError: if they cannot be loaded, or the engine does not start.
        """
        start_log("replica", config.log_level, config.log_format)
        async with AsyncExitStack() as stack:
            observation = await stack.enter_async_context(observed(config, _log.info))
            self._engines = await stack.enter_async_context(running_engines(config))
            self._service = CollaborationService(
                self._engines,
                max_sessions=config.max_sessions,
                answer_timeout_s=config.answer_timeout_s,
                session_timeout_s=config.session_timeout_s,
                speculation=config.speculation,
                observation=observation,
            )
            observation.readiness.engines = self._engines
            self._running = stack.pop_all()
        self._watching = asyncio.create_task(self._end_with_engine())

    async def _end_with_engine(self) -> None:
        """End this process with its engine: a replica without one refuses quickly, so Serve would prefer it."""
        await self._engines.gone()
        _log.error("an engine has ended, so the replica stops; Serve starts another")
        os._exit(EXIT_ENGINE_LOST)

    async def __del__(self) -> None:
        """End the engine; Serve waits for it."""
        self._watching.cancel()
        self._service.end_answers()
        await self._running.aclose()

    async def check_health(self) -> None:
        """Check health: a replica that fails this is replaced.

        Raises:
            EngineLost: if the engine has ended, or is given up.
            ModelBroken: if a model has failed its self-test: a new replica loads it anew.
        """
        if not self._engines.living:
            raise EngineLost("the engine has ended")
        if broken := self._engines.broken_models:
            raise ModelBroken(f"broken models: {', '.join(sorted(broken))}")

    async def GetModelCard(  # noqa: N802  # the contract's name
        self, request: bytes, grpc_context: RayServegRPCContext
    ) -> Frame:
        """See the service."""
        with suppress(grpc.aio.AbortError):
            return Frame(await self._service.GetModelCard(request, ReplicaCall(grpc_context)))
        return LAST_WORD

    async def Collaborate(  # noqa: N802  # the contract's name
        self, requests: gRPCInputStream[bytes], grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Frame]:
        """See the service."""
        async with aclosing(ReplicaStream(requests, grpc_context).frames(self._service)) as frames:
            async for frame in frames:
                yield frame
