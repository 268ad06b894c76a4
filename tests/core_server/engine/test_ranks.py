"""An engine of two ranks, which are threads here: what fails on one of them ends both, as the other cannot know."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from core_server.catalogue.engine_messages import Begin
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.process import Engine
from core_server.engine.ranks import ALONE, Ranks
from core_server.frontend.engine_client import EngineClient
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import FIRST, StepPosition
from ssd2.errors import CoreBusy, EngineLost, ModelBroken
from ssd2.models.lane import Row
from ssd2.models.ssd2 import SSD2
from ssd2.models.ssd2_lane import BatchLane
from ssd2.models.tensor_parallel import shard_model
from tests.core_server.conftest import engine_in_this_process, open_request

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)


def ranks_of(rank: int, store: dist.Store, timeout_s: float = 5) -> Ranks:
    return Ranks(rank, dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=timeout_s)))


@asynccontextmanager
async def engine_of_two_ranks(
    served: LoadedModel, prepare: Callable[[int, SSD2], None]
) -> AsyncIterator[tuple[EngineClient, list[Future[None]]]]:
    """A running engine, and how each of its ranks ends; `prepare` is given each rank's share of the model."""
    ours, theirs = socket.socketpair()
    store = dist.HashStore()

    def run(rank: int) -> None:
        ranks, model = ranks_of(rank, store), deepcopy(served.checkpoint.model)
        assert isinstance(model, SSD2)
        assert ranks.shard
        shard_model(model, ranks.shard)
        prepare(rank, model)
        share = LoadedModel(served.name, replace(served.checkpoint, model=model))
        try:
            Engine([share], 2, theirs if ranks.is_first else None, ranks).run()
        finally:
            if ranks.is_first:
                theirs.shutdown(socket.SHUT_RDWR)  # as the end of its process does

    client = EngineClient(*await asyncio.open_connection(sock=ours), 60.0)
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(run, rank) for rank in range(2)]
        await client.ready()
        yield client, ends
        client.close()
        await asyncio.to_thread(threads.shutdown)
    theirs.close()


@pytest.mark.parametrize("broken", [0, 1])
def test_all_ranks_find_a_model_broken_of_which_one_has_a_broken_share(served: LoadedModel, broken: int) -> None:
    store = dist.HashStore()

    def found(rank: int) -> bool:
        ranks, model = ranks_of(rank, store), deepcopy(served.checkpoint.model)
        assert isinstance(model, SSD2)
        assert ranks.shard
        shard_model(model, ranks.shard)
        if rank == broken:
            model.transformer.layers[1].fc2.weight.data.fill_(torch.nan)
        share = LoadedModel(served.name, replace(served.checkpoint, model=model))
        with pytest.raises(ModelBroken):
            Engine([share], 2, None, ranks).test_models()
        return True

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(found, range(2))) == [True, True]


def out_of_memory(inputs: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("in the middle of a batch")


async def first_logits(client: EngineClient, served: LoadedModel, session: int) -> StepPosition:
    with client.answer(Begin(session, served.name, open_request(served, PARAMS))) as frames:
        return (await frames.next()).at


async def test_ranks_end_when_the_front_end_hangs_up(served: LoadedModel) -> None:
    async with engine_of_two_ranks(served, lambda rank, model: None) as (client, ends):
        assert await first_logits(client, served, 0) == FIRST
    assert [end.result(timeout=10) for end in ends] == [None, None]


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_rank_that_runs_out_of_memory_ends_all(served: LoadedModel, failing: int) -> None:
    def prepare(rank: int, model: SSD2) -> None:
        if rank == failing:
            model.transformer.layers[1].fc2.forward = out_of_memory

    async with engine_of_two_ranks(served, prepare) as (client, ends):
        with pytest.raises(EngineLost):
            await first_logits(client, served, 0)
        errors = [await asyncio.to_thread(end.exception, 20) for end in ends]
    assert isinstance(errors[failing], torch.OutOfMemoryError)
    assert isinstance(errors[1 - failing], RuntimeError), "it waited for the other, but not for ever"


async def test_without_other_ranks_out_of_memory_ends_only_the_answer(
    served: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_in_this_process(served, slots=2) as client:
        with monkeypatch.context() as patched:
            patched.setattr(served.checkpoint.model.w_diff, "forward", out_of_memory)
            with pytest.raises(CoreBusy):
                await first_logits(client, served, 0)
        assert await first_logits(client, served, 1) == FIRST


async def test_after_running_out_of_memory_fewer_blocks_are_computed_together(
    served: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, sizes = BatchLane.logits, []
    computing, going_on = threading.Event(), threading.Event()

    def compute_with_memory_for_two(lane: BatchLane, rows: Sequence[Row]) -> Tensor:
        computing.set()
        assert going_on.wait(10)
        sizes.append(len(rows))
        return compute(lane, rows) if len(rows) <= 2 else out_of_memory(torch.empty(0))

    monkeypatch.setattr(BatchLane, "logits", compute_with_memory_for_two)
    async with engine_in_this_process(served, slots=5) as client:

        async def five(first: int) -> list[object]:
            """One answer that the engine is busy with, and four that come meanwhile."""
            computing.clear()
            going_on.clear()
            asked = [asyncio.create_task(first_logits(client, served, first))]
            await asyncio.to_thread(computing.wait, 10)
            asked += [asyncio.create_task(first_logits(client, served, first + number)) for number in range(1, 5)]
            await asyncio.sleep(0.5)  # until they have come
            going_on.set()
            return await asyncio.gather(*asked, return_exceptions=True)

        async with asyncio.timeout(30):
            for first in (0, 5):
                assert await five(first) == [FIRST] * 5
    assert sizes == [1, 4, 2, 2, 1, 2, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread is the engine
async def test_an_engine_whose_device_has_failed_ends(served: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    async with engine_in_this_process(served, slots=2) as client:
        monkeypatch.setattr(served.checkpoint.model.w_diff, "forward", fail)
        async with asyncio.timeout(20):
            with pytest.raises(EngineLost):
                await first_logits(client, served, 0)


@pytest.mark.parametrize("value", [None, [], list(range(100_000))], ids=["nothing", "empty", "long"])
def test_all_ranks_are_told_what_the_first_says(value: list[int] | None) -> None:
    store = dist.HashStore()

    def told(rank: int) -> list[int] | None:
        return ranks_of(rank, store).broadcast(value if rank == 0 else ["of no matter"])

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(told, range(2))) == [value, value]
    assert ALONE.broadcast(value) == value
