"""Looks whether a server's small answers wait for more to send (Nagle's algorithm)."""

from __future__ import annotations

import asyncio
import socket


async def sends_at_once(listening: socket.socket) -> bool:
    """Return True if asyncio sends what is written to connections of a listening socket without waiting for more."""
    accepted: asyncio.Queue[int] = asyncio.Queue()

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own: socket.socket = writer.get_extra_info("socket")
        accepted.put_nowait(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(connected, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        found = await accepted.get()
        writer.close()
    return bool(found)
