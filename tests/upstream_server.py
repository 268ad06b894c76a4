"""A server that speaks what upstreams speak, over a real network, in this process: vLLM, SGLang or llama.cpp's server.

It can also fail in every way that a server can: `fault` replaces the reply to a question.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Top = list[tuple[int, float]]
"""Token ids with their log-probabilities, from the likeliest down."""


@dataclass
class UpstreamServer:
    """One server.

    Attributes:
        kind: "vllm", "sglang" or "llama.cpp".
        largest: the k largest log-probabilities behind some token ids.
        model: its name.
        max_logprobs: most that are given.
        key: that calls need; None for none.
        meta: what the list of models says besides.
        fault: makes the reply of a question in place of the server: a status with a body, or a body; None for the
            proper one.
        asked: bodies of all questions.
        headers: of the last request.
        url: once it listens.
        open_requests: being answered now.
        most_open: at a time, until now.
        delay_s: before each reply.
    """

    kind: str
    largest: Callable[[Sequence[int], int], Top]
    model: str = "tiny"
    max_logprobs: int = 1024
    key: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    fault: Callable[[Top], object] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    open_requests: int = 0
    most_open: int = 0
    delay_s: float = 0.0

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[UpstreamServer]:
        """Listen on a port of this machine; connections are dropped on leaving."""
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            connections.add(task)
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    await self._exchange(reader, writer)
            connections.discard(task)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(connections):
                task.cancel()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(self.headers.get("content-length", 0)))
        self.open_requests += 1
        self.most_open = max(self.most_open, self.open_requests)
        try:
            await asyncio.sleep(self.delay_s)
            await _send(writer, self._reply(head.split()[1], json.loads(body or b"{}")))
        finally:
            self.open_requests -= 1

    def _reply(self, path: str, body: dict[str, Any]) -> object:
        if self.key and self.headers.get("authorization") != f"Bearer {self.key}":
            return 401, b"{}"
        if path == "/v1/models":
            return {"data": [{"id": self.model, **self.meta}]}
        if path != ("/generate" if self.kind == "sglang" else "/v1/completions"):
            return self._texts(body) if path == "/v1/completions" else (404, b"{}")
        self.asked.append(body)
        ids, k = _question(body)
        if k > self.max_logprobs:
            return 400, b'{"error": "too many logprobs"}'
        top = self.largest(ids, k)
        return _RAW[self.kind](top) if self.fault is None else self._faulty(top)

    def _faulty(self, top: Top) -> object:
        assert self.fault
        found = self.fault(top)
        return _RAW[self.kind](found) if isinstance(found, list) else found

    def _texts(self, body: dict[str, Any]) -> object:
        """What SGLang's OpenAI interface gives: texts, of which two ids may have the same."""
        top = self.largest(*_question(body))
        return {"choices": [{"logprobs": {"top_logprobs": [{f"text {token}": p for token, p in top}]}}]}


def _question(body: dict[str, Any]) -> tuple[Sequence[int], int]:
    return body.get("prompt") or body["input_ids"], body.get("logprobs") or body["top_logprobs_num"]


def _vllm(top: Top) -> object:
    return {"choices": [{"logprobs": {"top_logprobs": [{f"token_id:{token}": value for token, value in top}]}}]}


def _llama_cpp(top: Top) -> object:
    entries = [{"id": token, "token": "?", "bytes": [63], "logprob": value} for token, value in top]
    return {"choices": [{"logprobs": {"content": [{**entries[0], "top_logprobs": entries}]}}]}


def _sglang(top: Top) -> object:
    return {"meta_info": {"output_top_logprobs": [[[value, token, None] for token, value in top]]}}


_RAW: dict[str, Callable[[Any], object]] = {"vllm": _vllm, "llama.cpp": _llama_cpp, "sglang": _sglang}


class Endless:
    """A body that goes on for ever."""


class Silent:
    """No reply at all."""


class Dropped:
    """A connection that ends in the middle of a reply."""


async def _send(writer: asyncio.StreamWriter, reply: object) -> None:
    if isinstance(reply, Silent):
        await asyncio.Event().wait()
    if isinstance(reply, Endless):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            await writer.drain()
    if isinstance(reply, Dropped):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"choices"')
        await writer.drain()
        raise ConnectionResetError
    status, data = reply if isinstance(reply, tuple) else (200, reply)
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    writer.write(
        b"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\nContent-Length: %d\r\n\r\n" % (status, len(content)) + content
    )
    await writer.drain()
