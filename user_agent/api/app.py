"""The app: its routes, and what stands before all of them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import version
from types import ModuleType
from typing import Any

from fastapi import FastAPI, Security

from user_agent.api import (
    chat,
    completions,
    conversations,
    documents,
    health,
    keys,
    ledger,
    metrics,
    models,
    pairs,
    responses,
    settings,
    traces,
    web,
)
from user_agent.api.chat import IGNORED_HEADER
from user_agent.api.doors import Origins, TrustedHosts
from user_agent.api.errors import handle_errors
from user_agent.api.guard import WARNING_HEADER
from user_agent.api.security import authorised
from user_agent.api.state import AppState
from user_agent.store.access_keys import Scope

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


_ROOMS: dict[Scope, tuple[ModuleType, ...]] = {
    "ask": (models, chat, completions, responses, traces),
    "manage": (documents, conversations, settings, pairs, keys),
    "read-ledger": (ledger, metrics),
}
"""Routes by the scope that they require of a key. Those of `health` and `web` are open."""


def create_app(state: AppState) -> FastAPI:
    """The endpoint of an agent.

    Args:
        state: its parts.
    """
    app = FastAPI(
        title="Slingshot agent",
        version=version("slingshot"),
        description="Answers of a large model on a server and a small one on this device. Only the small one reads "
        "documents. The server's provider reads questions and answers.",
        docs_url=None,  # its pages load scripts from other hosts
        redoc_url=None,
        max_body_size=state.config.max_body,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.agent = state
    handle_errors(app)
    app.include_router(health.router)
    app.include_router(web.router)
    for scope, rooms in _ROOMS.items():
        for routes in rooms:
            app.include_router(routes.router, dependencies=[Security(authorised, scopes=[scope])])
    app.add_middleware(
        Origins,
        allow_origins=state.config.cors_origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["authorization", "content-type", "last-event-id"],
        expose_headers=["x-request-id", IGNORED_HEADER, WARNING_HEADER, "retry-after"],
    )
    app.add_middleware(TrustedHosts, names=state.config.trusted_hosts)
    app.add_middleware(_Named)
    return app


class _Named:
    """Gives every answer an id, and headers that keep it where it belongs."""

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {**_HEADERS, "x-request-id": f"req_{secrets.token_hex(8)}"}

        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in headers.items()),
                ]
            await send(message)

        await self._app(scope, receive, named)
