"""Interceptor of every call, unary or a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2

from core_server.access.callers import CALLER, Callers
from core_server.catalogue.errors import refusal_of
from core_server.frontend.service import SERVICE_NAME, refuse
from core_server.observability.metrics import Metrics
from ssd2.errors import CoreLoading, KeyRefused, SlingshotError

_HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]"


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Lets nothing through without a valid key but health checks, not even to methods that there are not."""

    def __init__(self, callers: Callers, metrics: Metrics) -> None:
        """Stand before the calls of a server.

        Args:
            callers: who may make them.
            metrics: where those that may not are counted.
        """
        self._callers, self._metrics = callers, metrics

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """See `grpc.aio.ServerInterceptor`; the caller is in the context that the call is answered in."""
        if handler_call_details.method.startswith(f"/{_HEALTH}/"):
            return await continuation(handler_call_details)
        given = [value for name, value in handler_call_details.invocation_metadata if name == "authorization"]
        try:
            CALLER.set(self._callers.identify(given))
        except KeyRefused as error:
            self._metrics.rejected[error.code] += 1
            return _refusing(error)
        return await continuation(handler_call_details)


class CallsWhenLoaded(grpc.GenericRpcHandler):
    """Refuses the service's calls while the models are loaded, and hands them on from then on.

    Attributes:
        handler: of the service; None until it is there.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Begin to refuse.

        Args:
            metrics: where refused calls are counted.
        """
        self._metrics = metrics
        self.handler: grpc.GenericRpcHandler | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        """See `grpc.GenericRpcHandler`."""
        if self.handler:
            return self.handler.service(handler_call_details)
        if not handler_call_details.method.startswith(f"/{SERVICE_NAME}/"):
            return None
        self._metrics.rejected[CoreLoading.code] += 1
        return _refusing(CoreLoading("the core is loading its models; ask again in a moment"))


def _refusing(error: SlingshotError) -> _Handler:
    """A handler for any call: it reads nothing, and a unary call takes the end of a stream for its own."""

    async def answer(_: object, rpc_context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await refuse(rpc_context, refusal_of(error))

    return grpc.stream_stream_rpc_method_handler(answer)
