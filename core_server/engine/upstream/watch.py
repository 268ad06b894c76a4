"""Probes of an upstream, so that its failure is known while no agent asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from core_server.engine.upstream.faults import UpstreamFault

IDLE_S = 10.0
"""Seconds between probes while the upstream works; an answer in between replaces one."""

SUSPECT_S = 1.0
"""Seconds to the next probe after a failed one, or after the first success since."""

PATIENCE_S = 10.0
"""Longest wait for a probe in seconds; its prompt is one token, so it is shorter than an answer's."""

AGREEING = 2
"""Questions in a row that have to end alike before the state changes: one alone may be an accident."""

BUSY = 429

_log = logging.getLogger(__name__)


# See docs/decisions/040-an-upstream-computes.md.
class Watch:
    """State of an upstream.

    Faults of answers do not change it, since one agent's prompt must not take a server down: they make the watch ask.

    Attributes:
        fault: why it does not compute, as of the last questions that agreed; None while it does.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Begin with an upstream that has just answered.

        Args:
            ask: asks it for one position; raises `UpstreamFault` if that fails.
        """
        self._ask = ask
        self.fault: str | None = None
        self._last: str | None = None
        self._in_a_row = AGREEING
        self._answered_at = time.monotonic()
        self._is_suspect = asyncio.Event()

    def answered(self) -> None:
        """Note that it has computed something."""
        self._answered_at = time.monotonic()
        self._note(None)

    def suspect(self) -> None:
        """Ask soon, as an answer has failed."""
        self._is_suspect.set()

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            is_steady = self._in_a_row >= AGREEING and self.fault is None
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S if is_steady else SUSPECT_S):
                    await self._is_suspect.wait()
            has_just_answered = time.monotonic() - self._answered_at < IDLE_S
            if self._is_suspect.is_set() or not (is_steady and has_just_answered):
                self._is_suspect.clear()
                await self._probe()

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ask()
        except TimeoutError:
            self._note(f"did not answer within {PATIENCE_S:g} s")
        except UpstreamFault as fault:
            self._note(None if fault.status == BUSY else fault.reason)
        else:
            self.answered()

    def _note(self, fault: str | None) -> None:
        self._in_a_row = self._in_a_row + 1 if (fault is None) == (self._last is None) else 1
        self._last = fault
        if self._in_a_row < AGREEING:
            return
        if fault and not self.fault:
            _log.error("the core is not ready: the upstream %s", fault)
        if self.fault and not fault:
            _log.warning("the core is ready again: the upstream answers")
        self.fault = fault
