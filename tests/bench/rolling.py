"""Two replicas, one of them restarted again and again while agents ask: what becomes of their answers.

A restart is what a provider does to take up a new release: SIGTERM, the grace time for answers in progress, a new
process at the same address. The next restart is the other replica's. One line for all of it:

    answers   that came to their end while it went on
    lost      that ended with an error instead; errors: by code
    wrong     that had other tokens than without a restart
    resumed   times that an answer went on at the other replica, or at the same one after its restart
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.bench.load import Load
from tests.bench.progress import say
from tests.end_to_end.conftest import CoreProcess, running_core

STOP_TIMEOUT_S = 30


def run(
    *, core: Path, user: Path, restarts: int, sessions: int, grace_s: float, max_tokens: int
) -> Iterator[dict[str, object]]:
    """Restart replicas under load.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        restarts: of the two together.
        sessions: agents at a time.
        grace_s: that an answer in progress is given.
        max_tokens: longest answer.
    """
    with ExitStack() as stack:
        replicas = [stack.enter_context(Replica(core, sessions, grace_s)) for _ in range(2)]
        load = Load(",".join(replica.address for replica in replicas), user, sessions, max_tokens)
        began = time.monotonic()
        asyncio.run(_restart(load, replicas, restarts))
        outcome = load.outcome
        yield {
            "restarts": restarts,
            "sessions": sessions,
            "grace_s": grace_s,
            "answers": outcome.answers,
            "left": outcome.left,
            "lost": outcome.errors.total(),
            "errors": dict(outcome.errors),
            "wrong": outcome.wrong,
            "resumed": outcome.resumed,
            "seconds": round(time.monotonic() - began, 1),
        }


async def _restart(load: Load, replicas: list[Replica], restarts: int) -> None:
    async with load.running():
        for number in range(restarts):
            await asyncio.to_thread(replicas[number % 2].restart)
            say(f"restart {number + 1} of {restarts}: {load.outcome}")


class Replica(AbstractContextManager["Replica"]):
    """A core that can be restarted at its address."""

    def __init__(self, core: Path, sessions: int, grace_s: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._core, self.address = core, f"127.0.0.1:{port}"
        self._options = ("--port", str(port), "--max-sessions", str(sessions), "--grace-s", str(grace_s))

    def __enter__(self) -> Replica:
        self._running = running_core(self._core, *self._options)
        self._process: CoreProcess = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__(None, None, None)

    def restart(self) -> None:
        """End it as an operator does, and start it anew."""
        self._process.process.send_signal(signal.SIGTERM)
        status = self._process.process.wait(STOP_TIMEOUT_S)
        if status:
            raise RuntimeError(f"the core ended with {status}")
        self.__exit__()
        self.__enter__()
