"""A core server with the core model of a pair or of the demo, started by the agent, and again when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from ssd2.demo.paths import CORE
from ssd2.models.pairs import downloaded_folder, pair_named
from user_agent.errors import CoreUnavailable, OwnCoreEnded

RESTART_DELAYS_S = (0.0, 1.0, 2.0, 4.0, 8.0)
STEADY_S = 60.0
"""A core that has run for so long did not end because of how it was started: its restarts are counted anew."""

_COMMAND = (sys.executable, "-m", "core_server")
_STOP_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


# See docs/decisions/008-batches.md.
def core_threads() -> int:
    """Return the number of threads for a core of one's own: half of the processors; the user model needs the others."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # which the user model's side reads too
    return int(asked) if asked.isdecimal() and int(asked) else max(1, (os.cpu_count() or 1) // 2)


def exit_on_sigterm() -> None:
    """Have SIGTERM, or the end of its terminal, end this process as an exit does: a core that it started ends too."""
    for number in _ending_signals():
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def _ending_signals() -> list[signal.Signals]:
    if sys.platform == "win32":  # which has no SIGHUP
        return [signal.SIGTERM]
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # as `nohup` has it
    return [signal.SIGTERM, signal.SIGHUP] if hangs_up else [signal.SIGTERM]


class OwnCore:
    """The process, which is started again at the same address whenever it ends, but not for ever.

    Attributes:
        title: of the core, in words.
        address: HOST:PORT.
    """

    def __init__(self, pair: str = "") -> None:
        """Choose what it serves.

        Args:
            pair: whose core model; empty for the demo's.

        Raises:
            InvalidParameter: if there is no such pair.
            ModelNotFound: if its core model is not downloaded.
        """
        self.title = f"the core of {pair}" if pair else "the demo's core"
        folder = downloaded_folder(pair_named(pair), "core") if pair else CORE
        self._model = f"{pair or 'demo-core'}={folder}"
        self.address = ""
        self._why_not: Callable[[str], OwnCoreEnded] | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def failure(self) -> OwnCoreEnded | None:
        """A new error that says why it cannot be asked just now; None while it runs."""
        return self._why_not(self.title) if self._why_not else None

    async def start(self) -> None:
        """Start it, and see from now on that it runs.

        Raises:
            CoreUnavailable: if it does not start, or cannot on this system.
        """
        if sys.platform == "win32":
            raise CoreUnavailable(
                f"{self.title} cannot be started on Windows, where no core runs; set the address of a core on another "
                "machine, or choose λ 1 to ask only the user model",
                parameter="core",
            )
        server = await self._launch("0")
        self._keeping = asyncio.create_task(self._keep(server))

    async def close(self) -> None:
        """End it, whatever it is doing."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        if self._server:
            await _end(self._server)

    async def _launch(self, port: str) -> asyncio.subprocess.Process:
        options = ("--model", self._model, "--port", port, "--log-level", "warning", "--threads", str(core_threads()))
        with _sigterm_later():  # else nobody knows of a process that has been started already
            self._server = await asyncio.create_subprocess_exec(
                *_COMMAND, *options, stdout=asyncio.subprocess.PIPE, start_new_session=True
            )
        line = (await self._server.stdout.readline()).decode() if self._server.stdout else ""
        address = re.search(r"listening on (\S+:\d+)", line)
        if not address:
            raise CoreUnavailable(
                f"{self.title} did not start; see the error in the agent's log, or use another core",
                parameter="core",
            )
        self.address, self._why_not = address[1], None
        return self._server

    async def _keep(self, server: asyncio.subprocess.Process) -> None:
        """Start it again each time it has ended, until it has ended too often in a row."""
        delays = iter(RESTART_DELAYS_S)
        started = time.monotonic()
        while True:
            await server.wait()
            if time.monotonic() - started >= STEADY_S:
                delays = iter(RESTART_DELAYS_S)
            self._why_not = ended
            if (delay := next(delays, None)) is None:
                self._why_not = given_up
                _log.error("%s", self.failure)
                return
            _log.warning("%s ended (exit code %s); starting it again", self.title, server.returncode)
            await asyncio.sleep(delay)
            started = time.monotonic()
            with suppress(CoreUnavailable, OSError):  # then it has ended once more, or there is no room for a process
                await self._launch(self.address.rpartition(":")[2])
            server = self._server or server


@asynccontextmanager
async def own_core(pair: str = "") -> AsyncIterator[OwnCore]:
    """Run the core of a pair, or the demo's, on this machine until the block is left.

    Args:
        pair: see `OwnCore`.

    Raises:
        SlingshotError: see `OwnCore`; CoreUnavailable if it does not start.
    """
    core = OwnCore(pair)
    try:
        await core.start()
        yield core
    finally:
        await core.close()


def ended(title: str) -> OwnCoreEnded:
    """Return the error of a core that has ended and is being started again."""
    return OwnCoreEnded(f"{title} ended and is restarting; ask again in a moment")


def given_up(title: str) -> OwnCoreEnded:
    """Return the error of a core that has ended too often and is not started again."""
    error = OwnCoreEnded(
        f"{title} ended {len(RESTART_DELAYS_S) + 1} times in a row and will not be restarted; see the agent's "
        "log and restart the agent, or use another core",
        parameter="core",
    )
    error.retry_after_s = None
    return error


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
