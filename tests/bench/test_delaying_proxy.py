from __future__ import annotations

import asyncio
import time

from tests.bench.delaying_proxy import CHUNK_BYTES, delayed


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
    writer.close()


async def _through_proxy(data: bytes, rtt_ms: float) -> tuple[bytes, float]:
    """What comes back from an echo over a longer way, and when, in ms."""
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        with delayed(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", rtt_ms) as address:
            reader, writer = await asyncio.open_connection(*address.split(":"))
            started = time.perf_counter()
            writer.write(data)
            writer.write_eof()
            back = await reader.read()
            return back, 1000 * (time.perf_counter() - started)


async def test_nothing_comes_back_before_a_round_trip() -> None:
    back, after_ms = await _through_proxy(b"to and fro", rtt_ms=60)
    assert back == b"to and fro"
    assert after_ms >= 60


async def test_bytes_arrive_complete_and_in_order_however_many_are_on_the_way() -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(1_000_000))
    back, _ = await _through_proxy(data, rtt_ms=20)
    assert back == data
