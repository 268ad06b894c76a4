"""Traces: whoever follows one sees every event once, whenever it comes."""

from __future__ import annotations

import asyncio

import pytest

from ssd2.errors import CoreBusy, NotFound
from ssd2.models.tokenizer import Tokenizer
from tests.conftest import DEMO_TOKENIZER
from user_agent.answering.answer import AnswerToken, CommittedBlock, ProjectedBlock
from user_agent.answering.traces import MAX_TRACES, Trace, Traces


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(DEMO_TOKENIZER)


async def test_events_that_come_while_others_are_taken_are_not_lost(tokenizer: Tokenizer) -> None:
    trace = Trace("t", tokenizer)
    trace.add("answer.start")
    seen = []
    async for event in trace.follow():
        seen.append(event.number)
        if event.number < 5:  # what the answer does while a slow reader holds an event
            trace.add("block.start", block=event.number)
            trace.add("block.start", block=event.number)
        if event.number == 5:
            trace.failed("stopped", "enough")
    assert seen == list(range(1, len(trace.events) + 1))


async def test_two_can_follow_live_and_both_come_to_the_end(tokenizer: Tokenizer) -> None:
    trace = Trace("t", tokenizer)

    async def numbers(after: int) -> list[int]:
        return [event.number async for event in trace.follow(after)]

    following = [asyncio.create_task(numbers(after)) for after in (0, 2)]
    for block in range(3):
        await asyncio.sleep(0)
        trace.add("block.start", block=block)
    trace.failed("stopped", "enough")
    trace.add("block.start", block=9)
    assert [await task for task in following] == [[1, 2, 3, 4], [3, 4]]


def test_a_timestep_tells_the_positions_that_changed_and_no_others(tokenizer: Tokenizer) -> None:
    trace = Trace("t", tokenizer)
    for step, token_ids in enumerate(([40, 41], [40, 42])):
        trace.projected(ProjectedBlock(0, step, 900, token_ids, []))
    token = AnswerToken(40, " x", " y", True, 0.1, 0.9, 0.8)
    trace.committed(CommittedBlock(0, 2, 800, [token], "x"))
    trace.projected(ProjectedBlock(1, 0, 1000, [40, 42], [1]))
    changed = [[position for position, *_ in e.data["changed"]] for e in trace.events if e.kind == "denoise.step"]
    assert changed == [[0, 1], [1], [0, 1]], "every block begins anew"
    assert [e.kind for e in trace.events] == [
        "block.start",
        "denoise.step",
        "denoise.step",
        "token.final",
        "block.commit",
        "block.start",
        "denoise.step",
    ]
    (final,) = (e.data for e in trace.events if e.kind == "token.final")
    assert (final["core_p"], final["user_p"], final["mixed_p"], final["is_changed"]) == (0.1, 0.9, 0.8, True)


def test_only_the_latest_traces_are_kept(tokenizer: Tokenizer) -> None:
    traces = Traces()
    for number in range(MAX_TRACES + 1):
        traces.begin(str(number), tokenizer)
    assert traces.get("1").id == "1"
    with pytest.raises(NotFound):
        traces.get("0")


def test_a_wait_for_the_core_is_in_the_trace_with_its_reason(tokenizer: Tokenizer) -> None:
    trace = Trace("t", tokenizer)
    trace.waiting(CoreBusy("it is full"), 1.2345)
    (event,) = trace.events
    assert (event.kind, event.data) == ("core.wait", {"code": "core_busy", "message": "it is full", "seconds": 1.234})
