"""Front of every call in Serve's proxy: keys, TLS, and the errors that agents get.

Serve's configuration names `core_server.scale.proxy.add_to_proxy` in `grpc_servicer_functions`, so this runs in the
process of the proxy. Serve 2.60 has no interceptors and no TLS there, and it tells clients the text of what failed
inside; so the calls of our service are taken here, and handed on to Serve's own handlers.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
import ray
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.proxy_request_response import gRPCStreamingType

from core_server.access.callers import CALLER, Caller, Callers, while_allowed
from core_server.access.keys import KeyReader
from core_server.access.scopes import SCOPE_KEY, scope_of
from core_server.catalogue.errors import INTERNAL_MESSAGE, refusal_of
from core_server.config import ServerConfig
from core_server.frontend.server import server_credentials
from core_server.frontend.service import SERVICE_NAME, refuse
from core_server.observability.logs import fields, frames
from core_server.options import read_named
from ssd2.errors import CoreBusy, CoreTimeout, EngineLost, InvalidParameter, ProtocolViolation, SlingshotError
from ssd2.wire.codec import ERROR_CODE_KEY, RequestHead, request_head

PREFIX = "SLINGSHOT_PROXY_"
SETTINGS = ("port", "tls_certificate", "tls_key", "client_ca", "keys", "answer_timeout_s")
VARIABLES = {PREFIX + name.upper(): name for name in SETTINGS}
"""Settings of `core-server` that the proxy takes, by the variables that hold them."""

_HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVE_HEALTH = "/ray.serve.RayServeAPIService/Healthz"
_log = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_ForServe: TypeAlias = "_Context | WithoutKey"
_Unary: TypeAlias = Callable[[bytes, _ForServe], Awaitable[bytes]]
_Stream: TypeAlias = Callable[[AsyncIterator[bytes], _ForServe], AsyncGenerator[bytes, None]]
_T = TypeVar("_T")


def add_to_proxy(_: object, server: gRPCGenericServer) -> None:
    """Add the core to Serve's proxy; see `gRPCOptions.grpc_servicer_functions`.

    Raises:
        InvalidParameter: if what the environment says cannot be done.
        InsecureLine: if there are keys and no TLS.
    """
    config = proxy_config(os.environ)
    if config.keys:
        _check_is_only_proxy()
    callers = Callers(KeyReader(config.keys)) if config.keys else None
    calls = ProxyCalls(
        server.service_handler_factory(f"/{SERVICE_NAME}/GetModelCard", gRPCStreamingType.UNARY_UNARY),
        server.service_handler_factory(f"/{SERVICE_NAME}/Collaborate", gRPCStreamingType.STREAM_STREAM),
        callers,
        takes_tls_alone=config.tls_certificate is not None,
        answer_timeout_s=config.answer_timeout_s,
    )
    server.add_passthrough_service(SERVICE_NAME)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, calls.handlers()),))
    server.add_passthrough_service(_HEALTH)
    health = Health(server.service_handler_factory(_SERVE_HEALTH, gRPCStreamingType.UNARY_UNARY))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)  # type: ignore[arg-type]  # one of grpc.aio's
    if credentials := server_credentials(config):
        server.add_secure_port(config.address(), credentials)


def proxy_config(environment: Mapping[str, str]) -> ServerConfig:
    """Return the settings of the proxy; a variable that is unset or empty leaves the default.

    Raises:
        InvalidParameter: if they do not fit together.
        InsecureLine: if there are keys and no TLS.
    """
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in VARIABLES:
            _log.warning("%s is not a setting of the proxy and has no effect; it reads %s", name, ", ".join(VARIABLES))
    given = {name: text for name, text in environment.items() if text}
    network: dict[str, Any] = {"host": "0.0.0.0", "port": 50_051}  # noqa: S104  # agents come over the network
    return ServerConfig({}, **{**network, **read_named(ServerConfig, given, VARIABLES)})


def _check_is_only_proxy() -> None:
    """Check that this is the only proxy: a key's limits are counted by one.

    Raises:
        InvalidParameter: on any node but the head, the only one with a proxy under `proxy_location: HeadOnly`.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    if not any(node["NodeID"] == here and "node:__internal_head__" in node["Resources"] for node in nodes):
        raise InvalidParameter(
            "limits of keys require a single proxy; set proxy_location: HeadOnly in Serve's configuration"
        )


# See docs/decisions/028-the-core-on-ray.md.
class ProxyCalls:
    """Handlers of our service's calls."""

    def __init__(
        self,
        card: _Unary,
        stream: _Stream,
        callers: Callers | None,
        *,
        takes_tls_alone: bool,
        answer_timeout_s: float,
    ) -> None:
        """Wrap Serve's handlers.

        Args:
            card: Serve's handler of GetModelCard.
            stream: Serve's handler of Collaborate.
            callers: holders of keys; None to answer everybody.
            takes_tls_alone: True to refuse calls on the port that Serve opens itself.
            answer_timeout_s: how long an agent may leave messages unread, or not send its request for a card.
        """
        self._card, self._stream, self._callers = card, stream, callers
        self._takes_tls_alone, self._answer_timeout_s = takes_tls_alone, answer_timeout_s

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Return the handlers by method; messages are bytes.

        A unary call takes what a stream's handler answers; gRPC would read all of it before it called a unary one.
        """
        return {
            "GetModelCard": grpc.stream_stream_rpc_method_handler(self.card),
            "Collaborate": grpc.stream_stream_rpc_method_handler(self.collaborate),
        }

    async def card(self, requests: AsyncIterator[bytes], rpc_context: _Context) -> None:
        """Return the model card."""
        async with self._admitted(rpc_context):
            request = await self._bounded(anext(requests, b""), "sent nothing")
            if answer := await self._card(request, WithoutKey(rpc_context)):  # else it brought the status
                await self._write(answer, rpc_context)

    async def collaborate(self, requests: AsyncIterator[bytes], rpc_context: _Context) -> None:
        """Stream one answer."""
        async with self._admitted(rpc_context):
            with CALLER.get().session():
                await while_allowed(self._relay(requests, rpc_context))

    @asynccontextmanager
    async def _admitted(self, rpc_context: _Context) -> AsyncIterator[None]:
        """Admit an allowed caller; the call ends with its replica's status, or with an error that agents know."""
        try:
            self._admit(rpc_context)
            yield
            _check_end(rpc_context)
        except Exception as error:
            if not isinstance(error, SlingshotError):
                kind = type(error).__name__
                _log.error("a call failed with %s", kind, extra=fields(error=kind, frames=frames(error)))
            await refuse(rpc_context, refusal_of(error))

    def _admit(self, rpc_context: _Context) -> None:
        """Identify the caller.

        Raises:
            ProtocolViolation: if the line is not encrypted and should be.
            KeyRefused: if the call has no valid key.
        """
        if self._takes_tls_alone and b"ssl" not in rpc_context.auth_context().get("transport_security_type", ()):
            raise ProtocolViolation("this port is not encrypted; use the core's TLS port, which its provider knows")
        if self._callers:
            given = [value for key, value in rpc_context.invocation_metadata() or () if key == "authorization"]
            CALLER.set(self._callers.identify(given))

    async def _relay(self, requests: AsyncIterator[bytes], rpc_context: _Context) -> None:
        counted = CountedRequests(requests, CALLER.get())
        async with aclosing(self._stream(counted, WithoutKey(rpc_context))) as answer:
            async for message in answer:
                if message:  # else it brought the status
                    counted.answered()
                    await self._write(message, rpc_context)

    async def _write(self, message: bytes, rpc_context: _Context) -> None:
        await self._bounded(rpc_context.write(message), "read nothing")

    async def _bounded(self, action: Awaitable[_T], what: str) -> _T:
        """Wait for the agent, as the service does.

        Raises:
            CoreTimeout: if it takes too long.
        """
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                return await action
        except TimeoutError as error:
            raise CoreTimeout(
                f"the agent {what} for {self._answer_timeout_s:g} s, so the core gave up; ask again"
            ) from error


class WithoutKey:
    """Context of a call for Serve, which copies it to a replica: without the key, with the scope."""

    def __init__(self, rpc_context: _Context) -> None:
        self._rpc_context = rpc_context
        self._scope = scope_of(rpc_context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc_context, name)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the call's metadata without the key, and with the scope of its answer, which no agent chooses."""
        given = self._rpc_context.invocation_metadata() or ()
        kept = tuple(pair for pair in given if pair[0] not in ("authorization", SCOPE_KEY))
        return (*kept, (SCOPE_KEY, self._scope)) if self._scope else kept


class CountedRequests:
    """Requests of a stream, charged as the service does: each timestep begun, and its tokens.

    The first begins when a replica has taken the answer; what it refuses costs nothing.
    """

    def __init__(self, requests: AsyncIterator[bytes], caller: Caller) -> None:
        self._requests, self._caller = requests, caller
        self._block_size: int | None = None
        self._is_answered = False

    def __aiter__(self) -> CountedRequests:
        return self

    async def __anext__(self) -> bytes:
        data = await anext(self._requests)
        if head := request_head(data):  # the replica refuses what does not parse
            self._count(head)
        return data

    def answered(self) -> None:
        """Note a message of the replica; its first shows that it accepted the answer."""
        if not self._is_answered:
            self._is_answered = True
            self._caller.count(self._block_size or 0)

    def _count(self, head: RequestHead) -> None:
        if self._block_size is None:
            self._block_size = head.block_size
        elif head.next_step is not None:
            self._caller.count(self._block_size, head.next_step)


def _check_end(rpc_context: _Context) -> None:
    """Pass on a status that a replica set; replace Serve's own, which describes its internals.

    Raises:
        CoreBusy: if Serve has more calls waiting than it takes.
        EngineLost: if no replica could go on with this one.
    """
    trailing = dict(rpc_context.trailing_metadata() or ())
    if _is_ok(rpc_context) or ERROR_CODE_KEY in trailing or rpc_context.details() == INTERNAL_MESSAGE:
        return
    _log.warning("Serve ended a call with status %s", rpc_context.code())
    if rpc_context.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise CoreBusy("the core is at its limit of answers at a time; ask again in a moment")
    raise EngineLost("no replica of the core can continue this answer; ask again in a moment")


def _is_ok(rpc_context: _Context) -> bool:
    return not rpc_context.code() or rpc_context.code() is grpc.StatusCode.OK  # 0 before it is set


class Health(health_pb2_grpc.HealthServicer):
    """gRPC's own health check, which is answered without a key: whether a replica can be reached."""

    def __init__(self, serve_health: _Unary) -> None:
        """Wrap Serve's health check.

        Args:
            serve_health: its own health check.
        """
        self._serve_health = serve_health

    async def Check(  # noqa: N802  # the contract's name
        self, _: health_pb2.HealthCheckRequest, rpc_context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Return whether calls can be answered, by the status of Serve's own check."""
        await self._serve_health(b"", rpc_context)
        is_serving = _is_ok(rpc_context)
        rpc_context.set_code(grpc.StatusCode.OK)
        rpc_context.set_details("")
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if is_serving else states.NOT_SERVING)
