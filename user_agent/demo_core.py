"""A core server with the demo's model, started by the agent as a process of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ssd2.demo.paths import CORE
from ssd2.errors import CoreUnavailable

_STOP_TIMEOUT_S = 10.0


def exit_on_sigterm() -> None:
    """Have SIGTERM end this process as an exit does, so that a core that it has started is ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@asynccontextmanager
async def demo_core() -> AsyncIterator[str]:
    """Its address on this machine; ended on leaving.

    Raises:
        CoreUnavailable: if it does not start.
    """
    options = ("--model", f"demo-core={CORE}", "--port", "0", "--log-level", "warning")
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "core_server", *options, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        line = (await server.stdout.readline()).decode() if server.stdout else ""
        address = re.search(r"listening on (\S+:\d+)", line)
        if not address:
            raise CoreUnavailable("the demo's core server did not start; its error is above. Give a core with --core")
        yield address[1]
    finally:
        if server.returncode is None:
            server.terminate()
        try:
            await asyncio.wait_for(server.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            server.kill()
            await server.wait()
