"""Retries with backoff at a core that cannot answer just now."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeAlias

from ssd2.errors import CoreError

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0

OnWait: TypeAlias = Callable[[CoreError, float], None]
"""Told of what went wrong, and of the seconds until the next try."""


# See docs/decisions/018-an-answer-outlives-its-connection.md.
class Patience:
    """Longer and longer waits between tries, none of them as long as those of others who lost the same core."""

    def __init__(self, patience_s: float, on_wait: OnWait | None = None) -> None:
        """Be patient.

        Args:
            patience_s: how long after the first failure to begin another try.
            on_wait: told of each wait.
        """
        self._patience_s, self._on_wait = patience_s, on_wait
        self.restore()

    def restore(self) -> None:
        """All is well: what fails next is the first failure."""
        self._failed: tuple[float, CoreError] | None = None  # since when, and what to tell
        self._delay_s = FIRST_DELAY_S

    async def wait(self, error: CoreError) -> None:
        """Wait after a failure, as long as the core says if it says so.

        Raises:
            CoreError: if there would be no patience left then: the last failure that says when to ask again, else the
                first.
        """
        now = time.monotonic()
        since, telling = self._failed or (now, error)
        if error.retry_after_s:  # the core is there, and says why not now
            telling = error
        self._failed = since, telling
        wait_s = max(self._delay_s * random.uniform(0.5, 1), (error.retry_after_s or 0.0) * random.uniform(1, 1.5))
        if now + wait_s - since >= self._patience_s:
            raise telling
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        if self._on_wait:
            self._on_wait(error, wait_s)
        await asyncio.sleep(wait_s)
