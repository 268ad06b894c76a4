"""grpc.health.v1, from the same readiness as /ready: two checks of one server never disagree."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.observability.readiness import Readiness

WATCH_INTERVAL_S = 0.5
"""How often somebody who watches is looked after: what has changed can be a silence."""

_Response = health_pb2.HealthCheckResponse
_Context: TypeAlias = "grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]"


class HealthService(health_pb2_grpc.HealthServicer):
    """Health checks of the whole server, as "" or by its service's name."""

    def __init__(self, readiness: Readiness, service_name: str) -> None:
        self._readiness, self._names = readiness, ("", service_name)

    async def Check(  # noqa: N802  # the contract's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell once."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return _Response(status=self._status(request.service))

    async def Watch(  # noqa: N802  # the contract's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> None:
        """Tell now and whenever it changes, until the server drains: nothing changes any more then."""
        told: Any = None
        while True:
            is_last = self._readiness.is_draining  # looked at first: it may change while a message is written
            if (status := self._status(request.service)) != told:
                await context.write(_Response(status=status))
                told = status
            if is_last:
                return
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _status(self, service: str) -> Any:
        if service not in self._names:
            return _Response.SERVICE_UNKNOWN
        return _Response.NOT_SERVING if self._readiness.obstacle else _Response.SERVING
