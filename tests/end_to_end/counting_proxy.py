"""A TCP proxy that reads HTTP/2's frame headers on the way (RFC 9113, §4.1) and counts what each kind of frame takes.

It hands every byte on as it came and knows nothing of gRPC's own headers or of what a message says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame."""

FRAME_HEADER_BYTES = 9
CHUNK_BYTES = 1 << 16
CLOSE_TIMEOUT_S = 1.0
KINDS = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)


@dataclass
class Direction:
    """What crossed one way.

    Attributes:
        total_bytes: all of it.
        data: payload of each DATA frame in order, in bytes; a frame that only ends its stream has 0.
        other_bytes: frames of every other kind, their headers included, by kind; a client's preface is one.
    """

    total_bytes: int = 0
    data: list[int] = field(default_factory=list)
    other_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def data_bytes(self) -> int:
        """Payload of all DATA frames: gRPC's messages with their prefixes, and nothing else."""
        return sum(self.data)

    @property
    def overhead_bytes(self) -> int:
        """All that is no payload of a DATA frame."""
        return self.total_bytes - self.data_bytes


@dataclass
class Counted:
    """Both ways through a proxy, over all of its connections."""

    address: str
    up: Direction = field(default_factory=Direction)
    down: Direction = field(default_factory=Direction)


class _Frames:
    """Takes one direction of one connection apart, in pieces of any size."""

    def __init__(self, into: Direction, *, has_preface: bool) -> None:
        self._into, self._has_preface, self._buffer = into, has_preface, b""

    def feed(self, data: bytes) -> None:
        self._into.total_bytes += len(data)
        self._buffer += data
        if self._has_preface and len(self._buffer) >= len(PREFACE):
            assert self._buffer.startswith(PREFACE)
            self._buffer, self._has_preface = self._buffer[len(PREFACE) :], False
            self._into.other_bytes["PREFACE"] += len(PREFACE)
        while not self._has_preface and self._take_frame():
            pass

    def _take_frame(self) -> bool:
        end = FRAME_HEADER_BYTES + int.from_bytes(self._buffer[:3], "big")
        if len(self._buffer) < max(end, FRAME_HEADER_BYTES):
            return False
        kind = KINDS[self._buffer[3]]
        if kind == "DATA":
            self._into.data.append(end - FRAME_HEADER_BYTES)
        else:
            self._into.other_bytes[kind] += end
        self._buffer = self._buffer[end:]
        return True


@asynccontextmanager
async def counting_proxy(address: str) -> AsyncIterator[Counted]:
    """An address that leads to another one, and what has crossed it: all, once the client is closed and this left."""
    host, _, port = address.rpartition(":")
    connections: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                _carry(reader, far_writer, _Frames(counted.up, has_preface=True)),
                _carry(far_reader, writer, _Frames(counted.down, has_preface=False)),
            )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    counted = Counted(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield counted
    finally:
        server.close()
        if connections:  # one that failed stays open until its error is collected
            _, still_open = await asyncio.wait(connections, timeout=CLOSE_TIMEOUT_S)
            for connection in still_open:
                connection.cancel()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: _Frames) -> None:
    """One direction, to its end."""
    while data := await reader.read(CHUNK_BYTES):
        frames.feed(data)
        writer.write(data)
    writer.close()
