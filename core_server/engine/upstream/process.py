"""The process of an engine whose model an upstream computes; it ends when the front end is gone."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from core_server.catalogue.engine_messages import NotReady, Ready, Start, Upstream, read_command, write
from core_server.config import HEARTBEAT_S
from core_server.engine.upstream.connection import UpstreamConnection
from core_server.engine.upstream.engine import UpstreamEngine
from core_server.engine.upstream.model import find_model
from core_server.observability.logs import start_log
from ssd2.errors import SlingshotError


def main() -> None:
    """Run an engine for the front end that listens at the Unix socket given as the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the front end ends it
    asyncio.run(_connect(Path(sys.argv[1])))


async def _connect(address: Path) -> None:
    try:
        reader, writer = await asyncio.open_unix_connection(address)
    except OSError:  # the front end was ended meanwhile: nobody is left to tell
        sys.exit(1)
    start = await read_command(reader)
    if isinstance(start, Start):
        start_log("engine", start.log_level, start.log_format)
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line for every timestep
        await serve(start, reader, writer)
    writer.close()


async def serve(start: Start, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Find the model at its upstream, and answer the front end until it is gone.

    Args:
        start: with an upstream, and the folder of one model.
        reader: from the front end.
        writer: to the front end.
    """
    try:
        if start.upstream is None:
            raise ValueError("an upstream engine is started without an upstream")
        async with UpstreamConnection(start.upstream, requests=start.slots + 1) as connection:
            await _answer(start, start.upstream, connection, reader, writer)
    except SlingshotError as error:
        write(writer, NotReady(error))
        await writer.drain()


async def _answer(
    start: Start,
    upstream: Upstream,
    connection: UpstreamConnection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    (folder,) = start.models.values()
    model = await find_model(upstream, connection, folder, start.logits_formats, start.max_context)
    write(writer, Ready((model.served,), start.slots))
    engine = UpstreamEngine(model, start.slots, lambda report: write(writer, report))
    tasks = [asyncio.create_task(_beat(engine, writer)), asyncio.create_task(engine.watch.run())]
    try:
        while command := await read_command(reader):
            if not isinstance(command, Start):  # which comes once, and before
                engine.handle(command)
    finally:
        for task in tasks:
            task.cancel()
        engine.close()


async def _beat(engine: UpstreamEngine, writer: asyncio.StreamWriter) -> None:
    """Report the engine's state once in a heartbeat."""
    while True:
        write(writer, engine.alive())
        await asyncio.sleep(HEARTBEAT_S)


if __name__ == "__main__":
    main()
