"""Many answers, ended in every way there is: no slot stays taken, and memory stays where it was."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.models.checkpoint import load_checkpoint
from ssd2.wire import collaboration_pb2 as pb
from tests.core_server.conftest import RawAgent, ending, open_request
from tests.end_to_end.conftest import CoreProcess, running_core
from tests.end_to_end.processes import engine_processes

SLOTS = 8
GROWTH_MB = 50
PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3, stop=0.4)
PROJECTION = pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8))
CLOSE = pb.CollaborateRequest(close=pb.Close())


@pytest.fixture
def core(core_folder: Path) -> Iterator[CoreProcess]:
    with running_core(core_folder, "--max-sessions", str(SLOTS)) as running:
        yield running


def memory_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1]) / 1024  # type: ignore[index]


async def one_answer(agent: RawAgent, loaded: LoadedModel, number: int) -> None:
    """An answer that ends in one of six ways."""
    request = open_request(loaded, PARAMS, noise_seed=number, speculation=number % 3)
    call, _ = await agent.open(request)
    way = number % 6
    if way in (1, 3):  # in the middle of a computation
        await call.write(PROJECTION)
    if way in (0, 1):
        call.cancel()
    elif way in (2, 3):
        await call.write(CLOSE)
    elif way == 4:
        await call.done_writing()
    else:
        await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 7)))  # a violation
    if way > 1:
        await ending(call)


async def answers(agent: RawAgent, loaded: LoadedModel, count: int) -> None:
    """So many answers, as many at a time as there are slots."""
    waiting = iter(range(count))

    async def some() -> None:
        for number in waiting:
            while True:  # a slot is given back a moment after its answer has ended
                try:
                    await one_answer(agent, loaded, number)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
                    await asyncio.sleep(0.01)

    await asyncio.gather(*(some() for _ in range(SLOTS)))


async def test_500_answers_leave_no_slot_taken_and_no_memory(core: CoreProcess, core_folder: Path) -> None:
    loaded = LoadedModel(core_folder.name, load_checkpoint(core_folder))
    processes = (core.process.pid, *engine_processes(core))
    async with grpc.aio.insecure_channel(core.address) as channel:
        agent = RawAgent(channel, 0)
        await answers(agent, loaded, 60)  # whatever is allocated once
        before = [memory_mb(pid) for pid in processes]
        await answers(agent, loaded, 500)
        after = [memory_mb(pid) for pid in processes]
        assert [later - earlier < GROWTH_MB for earlier, later in zip(before, after, strict=True)] == [True, True]

        await asyncio.sleep(0.5)
        calls = await asyncio.gather(*(agent.open(open_request(loaded, PARAMS)) for _ in range(SLOTS)))
        for call, _ in calls:
            call.cancel()
