"""For whoever operates a server, on a port of its own: /health, /ready and /metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from core_server.config import host_and_port
from core_server.observability.observation import Observation
from ssd2.errors import InvalidParameter

BACKLOG = 16
"""Connections that wait to be taken. Where there are no file descriptors left, asyncio tries to take as many, and logs
as many failures, each second; uvicorn's own number is 2,048."""

GRACE_S = 1
"""How long a request may go on once the server is done."""


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Readiness for an answer.

    Attributes:
        status: ready or not ready.
        reason: reason why not, or a fault that leaves it ready.
    """

    status: Literal["ready", "not ready"]
    reason: str | None = None


def create_app(observation: Observation) -> FastAPI:
    """The routes.

    Args:
        observation: of the server that they tell about.
    """
    app = FastAPI(
        title="Slingshot core",
        openapi_url=None,  # nor its pages, which load scripts from other hosts
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )

    @app.get("/health")
    async def health() -> Health:
        return Health()

    @app.get("/ready")
    async def ready(response: Response) -> Ready:
        if obstacle := observation.readiness.obstacle:
            response.status_code = 503
            return Ready(status="not ready", reason=obstacle)
        return Ready(status="ready", reason=observation.readiness.limitation)

    @app.get("/metrics")
    async def metrics() -> Response:  # in the loop that counts, so that nothing changes meanwhile
        return Response(generate_latest(observation.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


@asynccontextmanager
async def serving_ops(host: str, port: int, observation: Observation) -> AsyncIterator[str]:
    """Answer in this loop until left.

    Args:
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        observation: of the server.

    Yields:
        HOST:PORT.

    Raises:
        InvalidParameter: if the address cannot be listened on.
    """
    with listening_socket(host, port) as listening:
        options = uvicorn.Config(
            create_app(observation),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            lifespan="off",
            backlog=BACKLOG,
        )
        server = _Server(options)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield host_and_port(host, listening.getsockname()[1])
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves signals to the server that it is a part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything slow begins."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where TCP is named; with it every small answer waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # who comes early waits
    except OSError as error:
        listening.close()
        raise InvalidParameter(
            f"cannot listen on {host_and_port(host, port)}: {error.strerror}; choose another port or host, or "
            "port 0 for any free port",
            parameter="ops_port",
        ) from error
    return listening
