"""Several engines behind one front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from core_server import engines as engines_module
from core_server.config import ServerConfig
from core_server.engine_client import EngineClient
from core_server.engines import Engines, running_engines
from core_server.loaded_model import LoadedModel
from ssd2.errors import CoreBusy, EngineLost, ModelNotFound
from ssd2.params import DecodingParams
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import RawAgent, ending, engine_in_this_process, eventually, open_request, serving

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)


@asynccontextmanager
async def two_engines(served: LoadedModel) -> AsyncIterator[tuple[EngineClient, EngineClient, RawAgent]]:
    config = ServerConfig({}, max_sessions=4, replicas=2, grace_s=0.0)
    slots = config.slots_per_engine
    async with (
        engine_in_this_process(served, slots=slots) as first,
        engine_in_this_process(served, slots=slots) as second,
        serving(Engines([first, second]), config) as (_, agent),
    ):
        yield first, second, agent


async def close(call: grpc.aio.StreamStreamCall) -> None:
    await call.write(pb.CollaborateRequest(close=pb.Close()))
    assert (await ending(call)).status is grpc.StatusCode.OK


async def refused(agent: RawAgent, served: LoadedModel) -> object:
    call = await agent.send(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
    return (await ending(call)).code


async def test_an_answer_goes_to_the_engine_that_has_the_fewest(served: LoadedModel) -> None:
    async with two_engines(served) as (first, second, agent):
        calls = [(await agent.open(open_request(served, PARAMS)))[0] for _ in range(4)]
        assert (first.answers, second.answers) == (2, 2)
        for index in (0, 2):  # those that the first had
            await close(calls[index])
        await eventually(lambda: first.answers == 0)
        calls += [(await agent.open(open_request(served, PARAMS)))[0] for _ in range(2)]
        assert (first.answers, second.answers) == (2, 2)
        assert await refused(agent, served) == CoreBusy.code


async def test_the_end_of_one_engine_ends_its_answers_and_leaves_those_of_the_others(served: LoadedModel) -> None:
    async with two_engines(served) as (first, second, agent):
        gone = asyncio.create_task(Engines([first, second]).gone())
        (lost, _), (kept, _) = [await agent.open(open_request(served, PARAMS)) for _ in range(2)]
        assert not gone.done()
        first.close()
        assert (await ending(lost)).code == EngineLost.code
        await asyncio.wait_for(gone, 10)
        await kept.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8)))
        assert (await kept.read()).block_logits.step == 1
        assert await refused(agent, served) == EngineLost.code
        await close(kept)


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

    monkeypatch.setattr(engines_module, "running_engine", fake)
    with pytest.raises(ModelNotFound, match="no checkpoint"):
        async with running_engines(ServerConfig({"core": Path("core")}, replicas=2)):
            pass
    assert sorted(ended) == [0, 1]
