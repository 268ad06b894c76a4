"""Several engines behind one front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from torch import Tensor

from core_server.catalogue.served_model import ServedModel
from core_server.config import ServerConfig
from core_server.engine import process as engine_module
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend import engine_keeper
from core_server.frontend.engine_client import EngineClient
from core_server.frontend.engines import Engines, running_engines
from core_server.frontend.server import CoreServer
from core_server.frontend.service import _AgentStream
from core_server.observability.readiness import MAX_SILENCE_S
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreBusy, EngineLost, ModelBroken, ModelMismatch, ModelNotFound
from ssd2.models.lane import Lane
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import RawAgent, ending, engine_in_this_process, eventually, open_request, serving

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)
CONFIG = ServerConfig({"core": Path("core")}, max_sessions=4, replicas=2, grace_s=0.0)


@dataclass
class Started:
    """Engines that were started as threads in place of processes, in their order by number.

    Attributes:
        served: by the ones that start from now on.
        fault: raised in place of a start.
        fault_at_end: raised once an engine has been ended.
        may_start: whether starts go on, or wait.
        ended: numbers of those that have been ended, in order.
    """

    served: LoadedModel
    fault: Exception | None = None
    fault_at_end: Exception | None = None
    engines: dict[int, list[EngineClient]] = field(default_factory=lambda: {0: [], 1: []})
    starts: int = 0
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def start(self, config: ServerConfig, number: int) -> AsyncIterator[EngineClient]:
        self.starts += 1
        await self.may_start.wait()
        if self.fault:
            raise self.fault
        async with engine_in_this_process(self.served, slots=config.slots_per_engine) as engine:
            self.engines[number].append(engine)
            yield engine
        self.ended.append(number)
        if self.fault_at_end:
            raise self.fault_at_end


@pytest.fixture
def started(served: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Started:
    started = Started(served)
    started.may_start.set()
    monkeypatch.setattr(engine_keeper, "running_engine", started.start)
    monkeypatch.setattr(engine_keeper, "FIRST_DELAY_S", 0.01)
    return started


@asynccontextmanager
async def two_engines() -> AsyncIterator[tuple[Engines, CoreServer, RawAgent]]:
    async with running_engines(CONFIG) as engines, serving(engines, CONFIG) as (server, agent):
        yield engines, server, agent


async def open_one(agent: RawAgent, served: LoadedModel) -> grpc.aio.StreamStreamCall:
    return (await agent.open(open_request(served, PARAMS)))[0]


async def close(call: grpc.aio.StreamStreamCall) -> None:
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    assert (await ending(call)).status is grpc.StatusCode.OK


async def refused(agent: RawAgent, served: LoadedModel) -> object:
    call = await agent.send(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    return (await ending(call)).code


def figure(server: CoreServer, name: str, number: int) -> float | None:
    return server.observation.metrics.registry.get_sample_value(f"slingshot_core_{name}", {"engine": str(number)})


async def test_an_answer_goes_to_the_engine_that_has_the_fewest(served: LoadedModel, started: Started) -> None:
    async with two_engines() as (engines, _, agent):
        calls = [await open_one(agent, served) for _ in range(4)]
        assert (engines[0].answers, engines[1].answers) == (2, 2)
        for index in (0, 2):  # those that the first had
            await close(calls[index])
        await eventually(lambda: engines[0].answers == 0)
        calls += [await open_one(agent, served) for _ in range(2)]
        assert (engines[0].answers, engines[1].answers) == (2, 2)
        assert await refused(agent, served) == CoreBusy.code


async def test_answers_that_come_at_once_are_no_more_than_an_engine_has_slots_for(
    served: LoadedModel, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is taken up before its agent is told: else all would see the same engine as the one with the fewest."""
    write, may_be_told = _AgentStream.write, asyncio.Event()

    async def write_when_let(stream: _AgentStream, message: pb.CollaborateResponse) -> None:
        await may_be_told.wait()
        await write(stream, message)

    monkeypatch.setattr(_AgentStream, "write", write_when_let)
    async with two_engines() as (engines, server, agent):
        opening = [asyncio.create_task(open_one(agent, served)) for _ in range(4)]
        await eventually(lambda: server.sessions_active == 4)
        may_be_told.set()
        calls = await asyncio.gather(*opening)
        assert (engines[0].answers, engines[1].answers) == (2, 2)
        await asyncio.gather(*map(close, calls))


async def test_the_end_of_one_engine_ends_its_answers_and_it_is_started_again(
    served: LoadedModel, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_engines() as (engines, server, agent):
        assert server.observation.readiness.limitation is None
        lost, kept = [await open_one(agent, served) for _ in range(2)]
        gone = asyncio.create_task(engines.gone())
        started.may_start.clear()
        engines[0].close()
        assert (await ending(lost)).code == EngineLost.code

        other = await open_one(agent, served)
        assert engines[1].answers == 2, "new answers go to the one that is left"
        call = await agent.send(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
        busy = await ending(call)
        assert (busy.status, busy.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, CoreBusy.code)
        assert "with 1 of its 2 engines" in busy.details
        assert server.observation.readiness.obstacle is None
        assert server.observation.readiness.limitation == "degraded: 1 of 2 engines ended, 0 given up"
        assert [figure(server, "engine_running", number) for number in (0, 1)] == [0, 1]
        await eventually(lambda: started.starts == 3)
        assert started.ended == [0], "nothing of it is left before it is started again"

        started.may_start.set()
        await eventually(lambda: len(engines.living) == 2)
        assert [figure(server, "engine_running", number) for number in (0, 1)] == [1, 1]
        assert [figure(server, "engine_restarts_total", number) for number in (0, 1)] == [1, 0]
        assert server.observation.readiness.limitation is None
        again = await open_one(agent, served)
        assert engines[0].answers == 1
        await kept.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8)))
        assert (await kept.read()).block_logits.step == 1
        for call in (kept, other, again):
            await close(call)
        assert not gone.done()
        gone.cancel()
    assert started.ended == [0, 1, 0]
    lines = [line.getMessage() for line in caplog.records if line.name == engine_keeper.__name__]
    assert lines[0] == "engine 0 has ended and will be restarted in 0.01 s"
    assert lines[1].startswith("engine 0 serves again after a restart of")
    assert len(lines) == 2


async def test_the_server_is_at_its_end_once_no_engine_is_left(
    served: LoadedModel, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_keeper, "FIRST_DELAY_S", 60.0)
    async with two_engines() as (engines, server, agent), asyncio.timeout(20):
        gone = asyncio.create_task(engines.gone())
        engines[1].close()
        await eventually(lambda: 1 in started.ended)
        assert not gone.done()
        engines[0].close()
        await gone
        assert await refused(agent, served) == EngineLost.code
        assert server.observation.readiness.obstacle == "an engine has ended"


async def test_a_single_engine_is_not_started_again(served: LoadedModel, started: Started) -> None:
    async with running_engines(replace(CONFIG, replicas=1)) as engines, asyncio.timeout(20):
        engines.close()
        await engines.gone()
        await asyncio.sleep(0.1)
        assert started.starts == 1


async def test_an_engine_that_fails_again_and_again_is_given_up_and_the_other_goes_on(
    served: LoadedModel, started: Started, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays, sleep = [], asyncio.sleep
    monkeypatch.setattr(engine_keeper, "FIRST_DELAY_S", 16.0)
    async with two_engines() as (engines, server, agent), asyncio.timeout(20):
        with monkeypatch.context() as patched:

            async def no_sleep(delay_s: float) -> None:
                if delay_s >= 16:
                    delays.append(delay_s)
                await sleep(min(delay_s, 0.01))

            patched.setattr(asyncio, "sleep", no_sleep)
            engines[0].close()
            await eventually(lambda: len(started.engines[0]) == 2)  # started, and ended again
            started.fault = OSError("/srv/secret")
            engines[0].close()
            await eventually(lambda: 0 in engines.given_up)
        assert delays == [16, 32, 60, 60]
        assert started.starts == 2 + 4
        assert server.observation.readiness.limitation == "degraded: 1 of 2 engines ended, 1 given up"
        await close(await open_one(agent, served))
    assert "engine 0 is given up: it has failed 5 times without serving for 300 s" in caplog.text
    assert "engine 0 could not be restarted: OSError" in caplog.text
    assert "secret" not in caplog.text


async def test_an_engine_that_has_served_for_long_begins_to_be_counted_anew(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_keeper, "LASTING_S", 0.0)
    async with two_engines() as (engines, _, _), asyncio.timeout(30):
        for life in range(1, engine_keeper.MAX_FAILURES + 2):
            engines[0].close()
            await eventually(lambda life=life: len(started.engines[0]) == life + 1 and len(engines.living) == 2)
        assert not engines.given_up


async def test_an_engine_with_other_models_is_not_served(
    served: LoadedModel, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has replaced the files meanwhile: agents were told of the models that there were."""
    started_with = started.served
    async with two_engines() as (engines, _, _), asyncio.timeout(20):
        started.served = replace(served, checkpoint=replace(served.checkpoint, sha256="f" * 64))
        engines[0].close()
        await eventually(lambda: len(started.engines[0]) == 2)
        assert set(engines.living) == {1}
        assert engines.models == (started_with.served,)
        started.served = started_with
        await eventually(lambda: len(engines.living) == 2)
        assert engines[0].models == (started_with.served,)
        assert started.ended[:2] == [0, 0], "the one with other models was ended"
    was = served.checkpoint.sha256[:12]
    assert f"the files of model core have changed since the server loaded them (SHA-256 {was}, now ffff" in caplog.text


async def test_engines_that_have_loaded_different_models_are_not_begun_with(
    served: LoadedModel, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = started.start

    @asynccontextmanager
    async def changing(config: ServerConfig, number: int) -> AsyncIterator[EngineClient]:
        started.served = replace(served, checkpoint=replace(served.checkpoint, sha256=str(number) * 64))
        async with start(config, number) as engine:
            yield engine

    monkeypatch.setattr(engine_keeper, "running_engine", changing)
    with pytest.raises(ModelMismatch, match="have changed"):
        async with running_engines(CONFIG):
            pass
    assert sorted(started.ended) == [0, 1]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next answers whose logits are not finite, each on an engine whose self-test fails too."""
    breaks, finite_rows = list[str](), engine_module.finite_rows

    def finite(logits: Tensor) -> list[bool]:
        return [False] * len(logits) if breaks else finite_rows(logits)

    def fail(lane: Lane, served: ServedModel, slot: int) -> None:
        raise ModelBroken(f"the {breaks.pop()} model is broken")

    monkeypatch.setattr(engine_module, "finite_rows", finite)
    monkeypatch.setattr(engine_module, "self_test", fail)
    return breaks


async def break_one(agent: RawAgent, served: LoadedModel, breaking: list[str]) -> None:
    breaking.append("first")
    assert await refused(agent, served) == ModelBroken.code
    await eventually(lambda: not breaking)


async def test_an_engine_with_a_broken_model_is_restarted_while_another_answers(
    served: LoadedModel, started: Started, breaking: list[str]
) -> None:
    async with two_engines() as (engines, server, agent), asyncio.timeout(20):
        kept, lost = [await open_one(agent, served) for _ in range(2)]
        await close(kept)  # so that the next one is the first engine's
        await eventually(lambda: engines[0].answers == 0)
        lost, kept = await open_one(agent, served), lost
        started.may_start.clear()
        await break_one(agent, served, breaking)
        assert (await ending(lost)).code == EngineLost.code, "its other answers go on elsewhere"
        assert [figure(server, "engine_running", number) for number in (0, 1)] == [0, 1]
        assert server.observation.readiness.obstacle is None
        assert server.observation.readiness.limitation == "degraded: 1 of 2 engines ended, 0 given up"
        started.may_start.set()
        await eventually(lambda: len(engines.living) == 2)
        assert not engines[0].broken_models
        assert not engines.broken_models
        await close(kept)


async def test_the_last_engine_for_a_model_stays_and_is_replaced_once_another_is_back(
    served: LoadedModel, started: Started, breaking: list[str]
) -> None:
    async with two_engines() as (engines, server, agent), asyncio.timeout(20):
        started.may_start.clear()
        await break_one(agent, served, breaking)
        await eventually(lambda: set(engines.living) == {1})
        await break_one(agent, served, breaking)
        await eventually(lambda: engines.broken_models == {"core"})
        assert set(engines.living) == {1}
        assert server.observation.readiness.obstacle == "broken models: core"
        assert await refused(agent, served) == ModelBroken.code
        started.may_start.set()
        await eventually(lambda: len(engines.living) == 2 and not engines[0].broken_models | engines[1].broken_models)
        assert started.ended == [0, 1]
        await close(await open_one(agent, served))


def test_a_full_core_counts_the_engines_that_can_answer_the_model(served: LoadedModel) -> None:
    full = SimpleNamespace(is_gone=False, models=(served.served,), broken_models=set(), answers=2, slots=2)
    engines = Engines([full, SimpleNamespace(**{**vars(full), "broken_models": {"core"}})])  # type: ignore[list-item]
    with pytest.raises(CoreBusy, match="with 1 of its 2 engines"):
        engines.for_answer("core")


async def test_an_engine_that_cannot_be_ended_cleanly_is_started_again(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_engines() as (engines, _, _), asyncio.timeout(20):
        started.fault_at_end = OSError("/srv/secret")
        engines[0].close()
        await eventually(lambda: len(started.engines[0]) == 2 and len(engines.living) == 2)
        started.fault_at_end = None
    assert "engine 0 could not be ended: OSError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_silent_engine_is_chosen_last(
    served: LoadedModel, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_engines() as (engines, server, agent):
        silent, silence = engines[0], EngineClient.silence_s
        shown = property(lambda engine: MAX_SILENCE_S + 1 if engine is silent else silence.fget(engine))
        monkeypatch.setattr(EngineClient, "silence_s", shown)
        for _ in range(2):
            await open_one(agent, served)
        assert (engines[0].answers, engines[1].answers) == (0, 2)
        assert server.observation.readiness.obstacle is None
        assert server.observation.readiness.limitation == "degraded: 1 of 2 engines silent"


async def test_engines_are_started_side_by_side_and_all_ended_if_one_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, both = [], asyncio.Barrier(2)

    @asynccontextmanager
    async def fake(config: ServerConfig, replica: int) -> AsyncIterator[int]:
        try:
            await both.wait()
            if replica == 1:
                raise ModelNotFound("no checkpoint")
            await asyncio.sleep(60)
            yield replica
        finally:
            ended.append(replica)

    monkeypatch.setattr(engine_keeper, "running_engine", fake)
    with pytest.raises(ModelNotFound, match="no checkpoint"):
        async with running_engines(CONFIG):
            pass
    assert sorted(ended) == [0, 1]


async def test_a_server_that_stops_while_an_engine_starts_again_leaves_none(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def never_ready(config: ServerConfig, number: int) -> AsyncIterator[EngineClient]:
        try:
            begun.set()
            await asyncio.sleep(60)
            yield started.engines[number][0]
        finally:
            ended.set()

    async with two_engines() as (engines, _, _), asyncio.timeout(20):
        monkeypatch.setattr(engine_keeper, "running_engine", never_ready)
        engines[0].close()
        await begun.wait()
    assert ended.is_set()
