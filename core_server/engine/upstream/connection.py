"""The line to an upstream: HTTP with its key, and a bound on how long a reply takes and how large it is."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from core_server.catalogue.engine_messages import Upstream
from core_server.engine.upstream.faults import late, lied, refused, unreachable
from ssd2.errors import InsecureLine, InvalidParameter
from ssd2.wire.addresses import is_loopback

KEY_VARIABLE = "SLINGSHOT_UPSTREAM_KEY"

REPLY_BYTES, ENTRY_BYTES = 64 * 1024, 1024
"""Largest reply: so much, and so much more for each log-probability that is asked for."""

KEEP_ALIVE_S = 4.0
"""How long an idle connection is used again; uvicorn, which vLLM and SGLang listen with, closes one after 5 s."""


class UpstreamConnection:
    """HTTP connections to one upstream; used by many tasks at once."""

    def __init__(self, upstream: Upstream, requests: int) -> None:
        """Read the key; nothing is sent yet.

        Args:
            upstream: where it is.
            requests: at a time, at most.

        Raises:
            InvalidParameter: if the key cannot be read.
            InsecureLine: if it would cross a network unencrypted.
        """
        self.url, self._timeout_s = upstream.url, upstream.timeout_s
        key = _read_key(upstream.key_file)
        if key and not is_private(self.url):
            raise InsecureLine(
                f"the API key would cross the network to {self.url} unencrypted; use an https address, or a tunnel to "
                "this machine",
                parameter="upstream",
            )
        self._http = httpx2.AsyncClient(
            # Compressed replies could unpack to any size.
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=None,  # `_within` bounds the whole attempt, which httpx does not
            follow_redirects=False,  # the prompt and the key are for this server
            trust_env=False,
            limits=httpx2.Limits(max_connections=requests, keepalive_expiry=KEEP_ALIVE_S),
        )

    async def __aenter__(self) -> Self:
        """Return this connection, which is closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, path: str) -> Any:
        """Return the JSON that is at a path.

        Raises:
            UpstreamFault: if it does not come, or is no JSON.
        """
        return await self._within(self._http.build_request("GET", self.url + path), REPLY_BYTES * 16)

    async def post(self, path: str, body: dict[str, Any], entries: int) -> Any:
        """Post JSON and return the JSON of the reply.

        Args:
            path: of the URL.
            body: of the request.
            entries: that the reply has.

        Raises:
            UpstreamFault: if it does not come, or is no JSON.
        """
        request = self._http.build_request("POST", self.url + path, json=body)
        return await self._within(request, REPLY_BYTES + entries * ENTRY_BYTES)

    async def _within(self, request: httpx2.Request, max_bytes: int) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):  # of the whole attempt, not of each read
                data = await self._reply(request, max_bytes)
        except TimeoutError:
            raise late(self._timeout_s) from None
        except httpx2.HTTPError as error:
            raise unreachable(f"could not be reached ({type(error).__name__})") from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise lied("sent a reply that is not JSON") from None

    async def _reply(self, request: httpx2.Request, max_bytes: int) -> bytes:
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise refused(response.status_code)
            data = bytearray()
            async for part in response.aiter_raw():
                data += part
                if len(data) > max_bytes:
                    raise lied(f"sent a reply of more than {max_bytes} bytes")
            return bytes(data)
        finally:
            await response.aclose()


def is_private(url: str) -> bool:
    """True if what is sent to a URL is encrypted, or stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _read_key(file: Path | None) -> str | None:
    """Return the key of the file, else of the variable; None if there is neither."""
    try:
        key = file.read_text(encoding="utf-8").strip() if file else os.environ.get(KEY_VARIABLE)
    except (OSError, ValueError) as error:
        raise InvalidParameter(
            f"cannot read the upstream's key in {file}; choose a text file that holds only the key",
            parameter="upstream_key",
        ) from error
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise InvalidParameter(
            "the upstream's key is not a single printable word; set it again", parameter="upstream_key"
        )
    return key or None
