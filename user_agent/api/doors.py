"""Refusals before any route, in the endpoint's own shape: names of other hosts, and pages of other origins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from user_agent.api.errors import ApiError, error_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TrustedHosts:
    """Answers only requests whose Host header has a name of this agent: a page of another host may lead here."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], names: Sequence[str]) -> None:
        """Wrap an app.

        Args:
            app: behind this door.
            names: accepted, without a port; `*.example.org` is all below example.org, and `*` any.
        """
        self._app, self._names = app, [name.lower() for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        name = _without_port(Headers(scope=scope).get("host", ""))
        if any(one in ("*", name) or (one.startswith("*.") and name.endswith(one[1:])) for one in self._names):
            await self._app(scope, receive, send)
            return
        message = (
            f"{name[:80]!r} in the Host header is not a name of this agent; call it by one of "
            f"{', '.join(self._names)}, or add the name to the setting trusted_hosts and restart the agent"
        )
        await _refusal("host_not_trusted", message, "trusted_hosts")(scope, receive, send)


class Origins(CORSMiddleware):
    """Starlette's rules for pages of other origins; a refusal names the setting."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """See `CORSMiddleware`."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        origin = request_headers.get("origin", "")
        if self.is_allowed_origin(origin):
            message = "this agent takes no such method or header from pages of other origins; see its documentation"
            return _refusal("cors_refused", message, None)
        message = (
            f"the origin {origin[:200]!r} may not call this agent; add it to the setting cors_origins and restart the "
            "agent"
        )
        return _refusal("cors_refused", message, "cors_origins")


def _without_port(host: str) -> str:
    """Return the name of a Host header; an IPv6 address keeps its brackets."""
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()


def _refusal(code: str, message: str, setting: str | None) -> JSONResponse:
    status, body = error_body(ApiError(400, code, message, setting), "")
    return JSONResponse(body, status)
