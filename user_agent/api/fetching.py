"""Downloads that the page asked for, each in a process of its own: this one opens no connection but the line's."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from user_agent.errors import DownloadRunning

COMMAND = (sys.executable, "-m", "user_agent", "models", "get")


class Fetching:
    """One download at a time, by the command that a terminal would run.

    Attributes:
        pair: that is downloaded, or was last; empty for none.
        error: how the last one failed; None while it runs, and where it did not.
    """

    def __init__(self) -> None:
        self.pair = ""
        self.error: str | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True until the download has ended."""
        return self._running is not None and not self._running.done()

    def start(self, pair: str) -> None:
        """Start a download, unless it runs already.

        Raises:
            DownloadRunning: if that of another pair does.
        """
        if self.is_running and pair == self.pair:
            return
        if self.is_running:
            raise DownloadRunning(f"the download of {self.pair} is running; wait until it is done")
        self.pair, self.error = pair, None
        self._running = asyncio.create_task(self._run(pair))

    async def close(self) -> None:
        """End the download; what came is kept for the next one."""
        if self._running:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _run(self, pair: str) -> None:
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        command = (*COMMAND, pair, "--yes", "--json")
        process = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=nothing, stderr=pipe)
        try:
            _, told = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        if process.returncode:
            lines = told.decode(errors="replace").strip().splitlines() or ["the download was stopped"]
            self.error = lines[-1].removeprefix("user-agent: error: ")
