"""The engines of a server, all with the same models: which of them computes an answer, and how they begin and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from core_server.config import ServerConfig
from core_server.engine_client import EngineClient, running_engine
from core_server.served_model import ServedModel
from ssd2.errors import EngineLost


class Engines:
    """At least one running engine. They live and die together: when one ends, the server does."""

    def __init__(self, engines: Sequence[EngineClient]) -> None:
        self._engines = tuple(engines)

    def __iter__(self) -> Iterator[EngineClient]:
        return iter(self._engines)

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """That each of them has."""
        return self._engines[0].models

    @property
    def broken_models(self) -> set[str]:
        """Names of those that one of them has found broken."""
        return {name for engine in self._engines for name in engine.broken_models}

    def for_answer(self) -> EngineClient:
        """The engine for one more answer: the one that has the fewest.

        Raises:
            EngineLost: if one has ended; what the others have free is not enough for all sessions.
        """
        if any(engine.is_gone for engine in self._engines):
            raise EngineLost("the core has lost its engine; ask again in a moment")
        return min(self._engines, key=lambda engine: engine.answers)

    async def gone(self) -> None:
        """Wait until one has ended, or is given up; what it still had to compute fails."""
        waiting = {asyncio.create_task(engine.gone()) for engine in self._engines}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def close(self) -> None:
        """Hang up, so that all end at the same time."""
        for engine in self._engines:
            engine.close()


@asynccontextmanager
async def running_engines(config: ServerConfig) -> AsyncIterator[Engines]:
    """All engines of a server, started side by side and ended on leaving.

    Raises:
        SlingshotError: if the models cannot be loaded.
        EngineLost: if one does not start.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as group:  # which ends the others if one does not start
                starting = [
                    group.create_task(stack.enter_async_context(running_engine(config, replica)))
                    for replica in range(config.replicas)
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        engines = Engines([task.result() for task in starting])
        try:
            yield engines
        finally:
            engines.close()
