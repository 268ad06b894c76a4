"""What fails on one answer of a batch ends that answer, and shows in no other's tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc
import pytest
import torch
from torch import Tensor

from core_server.engine import process as engine_module
from core_server.engine import scheduler as scheduler_module
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.scheduler import Batch, Scheduler
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import PromptTooLong
from ssd2.models.lane import Row
from ssd2.models.ssd2_lane import BatchLane
from tests.core_server.conftest import RawAgent, Start, decode_alone, eventually
from tests.core_server.observability.test_metrics import ended

PARAMS = DecodingParams(block_size=8, max_tokens=24, steps=3)
SEEDS = [Seeds.reproducible(number) for number in range(8)]
POISON = SEEDS[5]


class Failure(Exception):
    """One that nobody foresaw."""


def out_of_memory() -> None:
    torch.empty(2**52)


def unforeseen() -> None:
    raise Failure("/srv/secret")


def refused() -> None:
    raise PromptTooLong("that prompt is too long")


FAULTS = {"out of memory": out_of_memory, "unforeseen": unforeseen, "refused": refused}
ENDS = {"out of memory": "core_busy", "unforeseen": "internal", "refused": "prompt_too_long"}


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """All eight answers are always computed as one batch; gives the sizes of what is tried."""
    next_batch, compute, sizes = Scheduler.next_batch, BatchLane.logits, []
    began = False

    def together(scheduler: Scheduler) -> Batch | None:
        nonlocal began
        began = began or scheduler.steps_waiting == len(SEEDS)
        return next_batch(scheduler) if began and scheduler.steps_waiting == scheduler.slots_used else None

    def seen(lane: BatchLane, rows: Sequence[Row]) -> Tensor:
        sizes.append(len(rows))
        return compute(lane, rows)

    monkeypatch.setattr(Scheduler, "next_batch", together)
    monkeypatch.setattr(BatchLane, "logits", seen)
    return sizes


def poisoned(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fault: Callable[[], None], *, once_done: bool
) -> None:
    """Have a method of a lane fail on any rows among which is the bad one's at its second timestep."""
    real = getattr(owner, name)

    def bad(lane: BatchLane, rows: Sequence[Row], *arguments: Tensor) -> object:
        is_bad = any(row.request.noise_seed == POISON.noise and row.state.at.number == 1 for row in rows)
        if is_bad and not once_done:
            fault()
        done = real(lane, rows, *arguments)
        if is_bad:
            fault()
        return done

    monkeypatch.setattr(owner, name, bad)


async def all_decoded(agent: RawAgent, served: LoadedModel) -> list[list[int] | BaseException]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*(agent.decode(served, PARAMS, seeds) for seeds in SEEDS), return_exceptions=True)


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize(("name", "once_done"), [("logits", False), ("logits", True), ("feed_back", False)])
async def test_one_bad_row_of_eight_ends_alone_and_seven_have_the_tokens_of_one_process(
    served: LoadedModel,
    start: Start,
    in_step: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    what: str,
    once_done: bool,
) -> None:
    poisoned(monkeypatch, BatchLane, name, FAULTS[what], once_done=once_done)
    caplog.set_level(logging.WARNING, logger="core_server.engine.process")
    server, agent = await start(served, max_sessions=8)
    answers = await all_decoded(agent, served)
    expected = [decode_alone(served, PARAMS, seeds) for seeds in SEEDS]
    bad = answers.pop(SEEDS.index(POISON))
    expected.pop(SEEDS.index(POISON))
    assert answers == expected
    assert isinstance(bad, grpc.aio.AioRpcError)
    assert in_step[0] == 8
    lines = [line.getMessage() for line in caplog.records if line.name == engine_module.__name__]
    told = {"out of memory": ["out of memory with a single block; its answer has ended"], "refused": []}
    assert lines == told.get(what, ["an answer failed with Failure"])
    await eventually(lambda: ended(server, ENDS[what]) == 1)
    await eventually(lambda: ended(server, "closed") == 7)


async def test_a_row_that_cannot_be_packed_ends_alone_and_nothing_is_computed_twice(
    served: LoadedModel, start: Start, in_step: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, packed = engine_module.pack_logits, 0

    def third_is_bad(*arguments: object) -> object:
        nonlocal packed
        packed += 1
        return unforeseen() if packed == 3 else pack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "pack_logits", third_is_bad)
    _, agent = await start(served, max_sessions=8)
    answers = await all_decoded(agent, served)
    expected = [decode_alone(served, PARAMS, seeds) for seeds in SEEDS]
    assert sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers) == 1
    assert all(isinstance(answer, Exception) or answer == own for answer, own in zip(answers, expected, strict=True))
    assert set(in_step) == {8, 7}


async def test_with_memory_for_three_blocks_all_eight_answers_are_computed(
    served: LoadedModel, start: Start, in_step: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = BatchLane.logits

    def with_little_memory(lane: BatchLane, rows: Sequence[Row]) -> Tensor:
        logits = compute(lane, rows)
        if len(rows) > 3:
            out_of_memory()
        return logits

    monkeypatch.setattr(BatchLane, "logits", with_little_memory)
    _, agent = await start(served, max_sessions=8)
    assert await all_decoded(agent, served) == [decode_alone(served, PARAMS, seeds) for seeds in SEEDS]
    assert in_step[:7] == [8, 4, 2, 2, 4, 2, 2]
    assert set(in_step[7:]) <= {1, 2}, "no batch is tried again that was too large"


async def test_a_row_too_large_by_itself_leaves_the_batches_of_others_as_large(
    served: LoadedModel, start: Start, in_step: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, BatchLane, "logits", out_of_memory, once_done=False)
    _, agent = await start(served, max_sessions=8)
    await all_decoded(agent, served)
    assert in_step[-1] == 7


def test_batches_grow_again_after_many_that_memory_sufficed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "GROWTH_BATCHES", 3)
    scheduler = Scheduler({}, slots=8)
    scheduler.shrink(8)
    scheduler.shrink(4)
    scheduler.shrink(8)
    sizes = []
    for _ in range(20):
        scheduler.grow_back()
        sizes.append(scheduler.max_batch)
    assert sizes == [2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8]
    scheduler.shrink(1)
    assert scheduler.max_batch == 1
