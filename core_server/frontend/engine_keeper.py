"""One engine of several, kept running: started again when it ends, and given up when that is of no use."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from core_server.config import ServerConfig
from core_server.frontend.engine_client import EngineClient, running_engine
from core_server.observability.logs import fields, frames
from ssd2.errors import SlingshotError

MAX_FAILURES = 5
LASTING_S = 300.0
"""An engine that fails this often in a row, having served for less than this each time, is given up."""

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
"""How long to wait before an engine is started again: twice as long after each failure in a row."""

_log = logging.getLogger(__name__)


# See docs/decisions/013-engines-restart.md.
class EngineKeeper:
    """Starts an engine, ends it, and in between starts it again."""

    def __init__(self, config: ServerConfig, number: int) -> None:
        """Start nothing yet.

        Args:
            config: of the server.
            number: which of its engines, from 0.
        """
        self._config, self._number = config, number
        self._running = AsyncExitStack()  # what has to be ended: a process, its socket, its folder

    async def start(self) -> EngineClient:
        """Start the engine, and wait until its models are loaded.

        Raises:
            SlingshotError: if they cannot be.
            EngineLost: if the process does not start.
        """
        return await self._running.enter_async_context(running_engine(self._config, self._number))

    async def stop(self) -> None:
        """End what runs, if anything does; what is stuck is killed."""
        await self._running.aclose()

    async def keep(
        self, engine: EngineClient, put_back: Callable[[int, EngineClient], None], give_up: Callable[[int], None]
    ) -> None:
        """Start the engine again whenever it has ended, until it has failed too often in a row.

        Args:
            engine: as it was started.
            put_back: takes up an engine that has been started again, unless its models are others.
            give_up: told when it is not started again.
        """
        failures = 0
        while (failures := await self._failures(engine, failures)) < MAX_FAILURES:
            delay_s = min(FIRST_DELAY_S * 2 ** (failures - 1), LONGEST_DELAY_S)
            _log.warning("engine %d has ended and will be restarted in %g s", self._number, delay_s)
            await asyncio.sleep(delay_s)
            engine = await self._start_again(put_back) or engine
        give_up(self._number)
        _log.error(
            "engine %d is given up: it has failed %d times without serving for %g s; the server continues "
            "without it until the server is restarted",
            self._number,
            failures,
            LASTING_S,
        )

    async def _failures(self, engine: EngineClient, before: int) -> int:
        """Wait until the engine has ended, and count its failures in a row: with those before it, unless it lasted."""
        began = time.monotonic()
        try:
            await engine.gone()
        except Exception as error:
            self._log_failure("sent a message that could not be read", error)
        lasted_s = time.monotonic() - began
        try:
            await self.stop()
        except Exception as error:
            self._log_failure("could not be ended", error)
        return 1 if lasted_s >= LASTING_S else before + 1

    async def _start_again(self, put_back: Callable[[int, EngineClient], None]) -> EngineClient | None:
        """Try once; None if it fails."""
        began = time.monotonic()
        try:
            engine = await self.start()
            put_back(self._number, engine)
        except Exception as error:  # whatever it is, the other engines go on
            self._log_failure("could not be restarted", error)
            return None
        _log.warning("engine %d serves again after a restart of %.1f s", self._number, time.monotonic() - began)
        return engine

    def _log_failure(self, what: str, error: Exception) -> None:
        """Say why in our own words; what another exception says may hold anything."""
        if isinstance(error, SlingshotError):
            _log.error("engine %d %s: %s", self._number, what, error, extra=fields(error=error.code))
        else:
            name = type(error).__name__
            _log.error("engine %d %s: %s", self._number, what, name, extra=fields(error=name, frames=frames(error)))
