"""A TCP proxy that makes a connection as long as wanted: every byte arrives half a round trip later, either way.

It delays and does nothing else: any number of bytes is on its way at a time, none is lost, and the connection itself
is made at once. A clock of asyncio's ticks in milliseconds, so a round trip may take up to 2 ms more. (A network
namespace with netem would delay packets in the kernel, but needs root.)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_BYTES = 1 << 16


@contextmanager
def delayed(address: str, rtt_ms: float) -> Iterator[str]:
    """An address that leads to another one over a longer way; a process of its own, ended on leaving."""
    command = [sys.executable, "-m", "tests.bench.delaying_proxy", address, str(rtt_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.kill()


async def serve(address: str, rtt_ms: float) -> None:
    """Listen on a free port, print its address and hand on whatever comes, for ever."""
    host, _, port = address.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            _carry(reader, far_writer, rtt_ms / 2000),
            _carry(far_reader, writer, rtt_ms / 2000),
            return_exceptions=True,
        )
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """One direction, until its end or until the other side is gone."""
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    delivering = asyncio.create_task(_deliver(on_the_way, writer))
    clock = asyncio.get_running_loop().time
    try:
        while data := await reader.read(CHUNK_BYTES):
            on_the_way.put_nowait((clock() + delay_s, data))
    finally:
        on_the_way.put_nowait((clock() + delay_s, b""))
        await delivering


async def _deliver(on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due, data = await on_the_way.get()
        await asyncio.sleep(due - clock())
        if not data:
            writer.write_eof()
            return
        writer.write(data)


def main() -> None:
    """`python -m tests.bench.delaying_proxy HOST:PORT RTT_MS`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT to lead to")
    parser.add_argument("rtt_ms", type=float, help="milliseconds that a round trip takes longer")
    options = parser.parse_args()
    asyncio.run(serve(options.address, options.rtt_ms))


if __name__ == "__main__":
    main()
