"""The engines of a server, all with the same models: which of them computes an answer, and how they begin and end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from core_server.catalogue.served_model import ServedModel
from core_server.config import ServerConfig
from core_server.frontend.engine_client import EngineClient
from core_server.frontend.engine_keeper import EngineKeeper
from core_server.observability.readiness import MAX_SILENCE_S
from ssd2.errors import CoreBusy, EngineLost, ModelMismatch
from ssd2.models.memory import check_memory_for

_log = logging.getLogger(__name__)


class Engines:
    """At least one engine. Where there are several, one that ends takes only its own answers along.

    Attributes:
        models: that each of them has.
        restarts: how often each of them has been started again, by its number.
        given_up: numbers of those that are not started again.
    """

    def __init__(self, engines: Sequence[EngineClient]) -> None:
        """Take up engines that are ready.

        Args:
            engines: in the order of their numbers.

        Raises:
            ModelMismatch: if their models differ.
        """
        self._engines = dict(enumerate(engines))
        self.models = engines[0].models
        self.restarts = Counter(dict.fromkeys(self._engines, 0))
        self.given_up: set[int] = set()
        for engine in engines:
            self._take_up(engine)

    def __iter__(self) -> Iterator[EngineClient]:
        return iter(self._engines.values())

    def __getitem__(self, number: int) -> EngineClient:
        """Return the engine of a number; if it has ended, as it was last."""
        return self._engines[number]

    @property
    def living(self) -> dict[int, EngineClient]:
        """Engines that have not ended, by their numbers."""
        return {number: engine for number, engine in self._engines.items() if not engine.is_gone}

    @property
    def broken_models(self) -> set[str]:
        """Names of the models that no engine is left for."""
        return (
            set.intersection(*broken)
            if (broken := [engine.broken_models for engine in self.living.values()])
            else set()
        )

    def for_answer(self, model: str) -> EngineClient:
        """Choose the engine for one more answer: of those with room the one that has the fewest, a silent one last.

        Args:
            model: name of the answer's model; engines that have found it broken are left out.

        Raises:
            EngineLost: if all have ended.
            CoreBusy: if those that are left have no room.
        """
        if not (living := self.living):
            raise EngineLost("the core has lost its engine; ask again in a moment")
        able = [engine for engine in living.values() if model not in engine.broken_models]
        free = [engine for engine in able if engine.answers < engine.slots]
        if not free:
            raise CoreBusy(
                f"the core is at its limit of answers with {len(able)} of its {len(self._engines)} engines; ask again "
                "in a moment"
            )
        return min(free, key=lambda engine: (engine.silence_s > MAX_SILENCE_S, engine.answers))

    def put_back(self, number: int, engine: EngineClient) -> None:
        """Take up an engine that has been started again.

        Raises:
            ModelMismatch: if its models are not those that agents have been told of.
        """
        self._take_up(engine)
        self._engines[number] = engine
        self.restarts[number] += 1
        self._end_broken()  # those that were kept only because no other engine could answer

    def _take_up(self, engine: EngineClient) -> None:
        _check_same(self.models, engine.models)
        engine.on_broken = self._end_broken

    def _end_broken(self) -> None:
        """End engines with a broken model that another one can answer; what keeps them running loads it anew."""
        for number, engine in self.living.items():
            others = [other for other in self.living.values() if other is not engine]
            if any(engine.broken_models - other.broken_models for other in others):
                _log.error("engine %d is stopped because it has broken models; others continue its answers", number)
                engine.give_up()

    async def gone(self) -> None:
        """Wait until all have ended, or are given up; what they still had to compute fails."""
        while living := self.living:
            waiting = {asyncio.create_task(engine.gone()) for engine in living.values()}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    def close(self) -> None:
        """Hang up, so that all end at the same time."""
        for engine in self:
            engine.close()


def _check_same(told: Sequence[ServedModel], found: Sequence[ServedModel]) -> None:
    """Refuse to serve other models under the same names.

    Args:
        told: as agents are told of them.
        found: as an engine has loaded them.

    Raises:
        ModelMismatch: if they differ.
    """
    for one, other in zip(told, found, strict=True):
        if one.card != other.card:
            was, now = (model.card.model_sha256[:12] for model in (one, other))
            raise ModelMismatch(
                f"the files of model {one.name} have changed since the server loaded them (SHA-256 {was}, now {now}); "
                "restore the files, or restart the server"
            )


@asynccontextmanager
async def running_engines(config: ServerConfig) -> AsyncIterator[Engines]:
    """All engines of a server, started side by side and ended on leaving; of several, each is kept running.

    Raises:
        SlingshotError: if the models cannot be loaded.
        EngineLost: if one does not start.
    """
    if not config.upstream:
        parameter = "precision" if config.weights_precision == "float32" else "models"
        check_memory_for(config.models, config.weights_precision, parameter, copies=config.replicas)
    keepers = [EngineKeeper(config, number) for number in range(config.replicas)]
    async with AsyncExitStack() as stack:
        for keeper in keepers:
            stack.push_async_callback(keeper.stop)
        try:
            async with asyncio.TaskGroup() as group:  # which ends the others if one does not start
                starting = [group.create_task(keeper.start()) for keeper in keepers]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        engines = Engines([task.result() for task in starting])
        # Without a second engine there is nothing to go on with: the server ends, and whatever runs it starts it again.
        keeping = [
            asyncio.create_task(keeper.keep(engine, engines.put_back, engines.given_up.add))
            for keeper, engine in zip(keepers, engines, strict=True)
            if config.replicas > 1
        ]
        try:
            yield engines
        finally:
            for task in keeping:
                task.cancel()
            engines.close()
            await asyncio.gather(*keeping, return_exceptions=True)
