"""A core server with the demo's model, started by the agent as a process of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from ssd2.demo.paths import CORE
from ssd2.errors import CoreUnavailable

_STOP_TIMEOUT_S = 10.0


def exit_on_sigterm() -> None:
    """Have SIGTERM, or the end of its terminal, end this process as an exit does: a core that it started ends too."""
    for number in _ending_signals():
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def _ending_signals() -> list[signal.Signals]:
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as `nohup` has it
    return [signal.SIGTERM, signal.SIGHUP] if hangs_up else [signal.SIGTERM]


@asynccontextmanager
async def demo_core() -> AsyncIterator[str]:
    """Its address on this machine; ended on leaving.

    Raises:
        CoreUnavailable: if it does not start.
    """
    options = ("--model", f"demo-core={CORE}", "--port", "0", "--log-level", "warning")
    server: asyncio.subprocess.Process | None = None
    try:
        with _sigterm_later():  # else nobody knows of a process that has been started already
            server = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "core_server", *options, stdout=asyncio.subprocess.PIPE, start_new_session=True
            )
        line = (await server.stdout.readline()).decode() if server.stdout else ""
        address = re.search(r"listening on (\S+:\d+)", line)
        if not address:
            raise CoreUnavailable("the demo's core server did not start; its error is above. Give a core with --core")
        yield address[1]
    finally:
        if server:
            await _end(server)


async def _end(server: asyncio.subprocess.Process) -> None:
    if server.returncode is None:
        server.terminate()
    try:
        await asyncio.wait_for(server.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        server.kill()
        await server.wait()


@contextmanager
def _sigterm_later() -> Iterator[None]:
    """Have SIGTERM and SIGHUP wait until the block is left."""
    told: list[int] = []
    before = {n: signal.signal(n, lambda number, _: told.append(number)) for n in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if told:
            signal.raise_signal(told[0])
