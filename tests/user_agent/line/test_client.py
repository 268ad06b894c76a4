"""The line to the core, against servers that are written for a test."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
import pytest

from core_server.catalogue.errors import refusal_of
from ssd2.algorithm.projection import FIRST, StepPosition
from ssd2.errors import (
    CoreBusy,
    CoreLoading,
    CoreStopping,
    CoreTimeout,
    EngineLost,
    InvalidParameter,
    KeyRefused,
    ModelBroken,
    ModelMismatch,
    PromptTooLong,
    ProtocolViolation,
    SlingshotError,
    TokenLimitReached,
)
from ssd2.logits.format import PREFERRED
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import ERROR_CODE_KEY, OpenRequest
from user_agent.errors import CoreLost, CoreUnavailable
from user_agent.line.client import CoreClient
from user_agent.line.resuming_stream import ResumingStream
from user_agent.store.ledger import Ledger

OPEN = OpenRequest("", "ssd-2", "", "", 32, (1,), 0, (1000,), 8, 1, 5.0, "own", PREFERRED, 0, 0)


async def test_why_the_core_ended_an_answer_is_known_to_an_agent_that_was_writing() -> None:
    """Not so with grpcio alone: https://github.com/grpc/grpc/issues/36066."""

    class Stopping(pb_grpc.CollaborationServiceServicer):
        async def Collaborate(self, requests: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
            await context.read()
            await context.write(pb.CollaborateResponse(opened=pb.Opened(session_id="1")))
            code = ((ERROR_CODE_KEY, CoreStopping.code),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "it is being stopped", code)

    server = grpc.aio.server()
    pb_grpc.add_CollaborationServiceServicer_to_server(Stopping(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with CoreClient(f"127.0.0.1:{port}", Ledger.in_memory(), patience_s=0) as client:
        stream = await client.open(OPEN)
        with pytest.raises(CoreStopping, match="refused: it is being stopped"):
            await _commit_again_and_again(stream)
    await server.stop(0)


async def _commit_again_and_again(stream: ResumingStream) -> None:
    for number in range(10_000):
        await stream.commit(StepPosition(number, 0, 0), [1] * 8)


class FakeCore(pb_grpc.CollaborationServiceServicer):
    """Opens answers, but refuses the first ones: at once, or with `opens_first` once they are opened.

    It says nothing of its model.
    """

    def __init__(self, *refusals: SlingshotError, opens_first: bool = False, guesses: int = 0) -> None:
        self.refusals, self.opens_first, self.guesses = list(refusals), opens_first, guesses
        self.asked, self.address = 0, ""
        self.server, self.was_told, self.was_asked = grpc.aio.server(), asyncio.Event(), asyncio.Event()

    async def GetModelCard(self, request: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        self.was_asked.set()
        await asyncio.sleep(60)

    async def Collaborate(self, requests: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        self.asked += 1
        await context.read()
        if self.opens_first:
            await self._open(context)
        if self.refusals:
            refusal = refusal_of(self.refusals.pop(0))
            await context.abort(refusal.status, refusal.message, refusal.trailing_metadata)
        if not self.opens_first:
            await self._open(context)
        for _ in range(self.guesses):
            await context.write(pb.CollaborateResponse(block_logits=pb.BlockLogits(guess=[1] * 8)))
        if isinstance(await context.read(), pb.CollaborateRequest):
            self.was_told.set()

    async def _open(self, context: grpc.aio.ServicerContext) -> None:
        await context.write(pb.CollaborateResponse(opened=pb.Opened(session_id="1")))


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[FakeCore]]]:
    cores = []

    async def started(*refusals: SlingshotError, **how: Any) -> FakeCore:
        core = FakeCore(*refusals, **how)
        pb_grpc.add_CollaborationServiceServicer_to_server(core, core.server)
        core.address = f"127.0.0.1:{core.server.add_insecure_port('127.0.0.1:0')}"
        await core.server.start()
        cores.append(core)
        return core

    yield started
    for core in cores:
        await core.server.stop(0)


Start = Callable[..., Awaitable[FakeCore]]
CANNOT_ANSWER = [
    CoreBusy("full"),
    CoreLoading("loads"),
    CoreStopping("stops"),
    EngineLost("broken"),
    ModelBroken("not finite"),
]
NOBODY = "127.0.0.1:1"


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def _begins_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two replicas is asked first."""
    monkeypatch.setattr(random, "randrange", lambda _: request.param)


@pytest.mark.usefixtures("_begins_at")
async def test_a_replica_that_is_not_there_is_passed_over(start: Start) -> None:
    core = await start()
    async with CoreClient(f"{NOBODY}, {core.address}", Ledger.in_memory(), patience_s=0) as client, asyncio.timeout(20):
        (await client.open(OPEN)).cancel()
    assert core.asked == 1


@pytest.mark.usefixtures("_begins_at")
@pytest.mark.parametrize("refusal", CANNOT_ANSWER)
async def test_a_replica_that_cannot_answer_is_passed_over(start: Start, refusal: SlingshotError) -> None:
    one, other = await start(refusal), await start()
    async with CoreClient(f"{one.address},{other.address}", Ledger.in_memory(), patience_s=0) as client:
        for _ in range(2):
            (await client.open(OPEN)).cancel()
    assert other.asked >= 1
    assert one.asked + other.asked <= 3


async def test_agents_spread_over_the_replicas(start: Start) -> None:
    cores = [await start(), await start()]
    for _ in range(40):
        async with CoreClient(",".join(core.address for core in cores), Ledger.in_memory()) as client:
            (await client.open(OPEN)).cancel()
    assert min(core.asked for core in cores) > 0


async def test_a_full_core_is_asked_again_when_it_says_so_and_whoever_waits_is_told(start: Start) -> None:
    full = CoreBusy("full")
    full.retry_after_s = 0.2
    core, told = await start(full, full), []
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        (await client.open(OPEN, lambda *what: told.append(what))).cancel()
    assert core.asked == 3
    assert [(type(error), 0.2 <= seconds <= 0.3) for error, seconds in told] == [(CoreBusy, True)] * 2


async def test_a_core_that_loads_is_asked_again_until_it_answers(start: Start) -> None:
    loading = CoreLoading("loading")
    loading.retry_after_s = 0.1
    core = await start(loading, loading)
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        (await client.open(OPEN)).cancel()
    assert core.asked == 3


async def test_a_broken_model_of_the_only_core_is_told_at_once(start: Start) -> None:
    core = await start(ModelBroken("not finite"))
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        with pytest.raises(ModelBroken, match="not finite"):
            await client.open(OPEN)
    assert core.asked == 1


async def test_without_patience_a_full_core_is_told_at_once(start: Start) -> None:
    core = await start(CoreBusy("full"))
    async with CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client:
        with pytest.raises(CoreBusy, match="full") as raised:
            await client.open(OPEN)
    assert (core.asked, raised.value.retry_after_s) == (1, 1.0)


async def test_how_long_a_limit_holds_comes_with_the_error(start: Start) -> None:
    core = await start(TokenLimitReached("ask again in 40 s", retry_after_s=40))
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        with pytest.raises(TokenLimitReached) as raised:
            await client.open(OPEN)
    assert (core.asked, raised.value.retry_after_s) == (1, 40.0)


@pytest.mark.parametrize("refusal", [KeyRefused("no"), ModelMismatch("another"), PromptTooLong("too long")])
async def test_what_does_not_change_by_waiting_or_elsewhere_is_told_at_once(
    start: Start, refusal: SlingshotError
) -> None:
    cores = [await start(refusal), await start(refusal)]
    async with CoreClient(",".join(core.address for core in cores), Ledger.in_memory()) as client:
        with pytest.raises(type(refusal)):
            await client.open(OPEN)
    assert sum(core.asked for core in cores) == 1


async def test_where_nobody_answers_it_is_said_as_soon_as_it_is_known(start: Start) -> None:
    async with (
        CoreClient(f"{NOBODY},localhost:1", Ledger.in_memory(), connect_timeout_s=120) as client,
        asyncio.timeout(30),
    ):
        for _ in range(2):
            with pytest.raises(
                CoreUnavailable, match=r"no core answers at (127\.0\.0\.1|localhost):1; check the address"
            ):
                await client.open(OPEN)


async def test_a_core_that_comes_back_is_reached_at_the_next_try() -> None:
    """A channel that has failed a few times would wait for seconds before it tries again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = grpc.aio.server()
    pb_grpc.add_CollaborationServiceServicer_to_server(FakeCore(), server)
    async with CoreClient(address, Ledger.in_memory(), patience_s=0) as client:
        for _ in range(4):
            with pytest.raises(CoreUnavailable):
                await client.open(OPEN)
        server.add_insecure_port(address)
        await server.start()
        (await client.open(OPEN)).cancel()
    await server.stop(0)


async def test_a_replica_that_broke_an_answer_is_the_last_that_goes_on_with_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "randrange", lambda _: 0)  # the first one is asked first
    one = await start(EngineLost("broken"), opens_first=True)
    other = await start(PromptTooLong("it got there"), opens_first=True)
    async with CoreClient(f"{one.address},{other.address}", Ledger.in_memory()) as client:
        stream = await client.open(OPEN)
        with pytest.raises(PromptTooLong, match="it got there"):
            await stream.logits(FIRST)
    assert (one.asked, other.asked) == (1, 1)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_model_broken_mid_answer_is_tried_once_at_each_replica(start: Start, replicas: int) -> None:
    cores = [await start(*[ModelBroken("not finite")] * 9, opens_first=True) for _ in range(replicas)]
    async with CoreClient(",".join(core.address for core in cores), Ledger.in_memory()) as client:
        stream = await client.open(OPEN)
        with pytest.raises(ModelBroken, match="not finite"):
            await stream.logits(FIRST)
    assert [core.asked for core in cores] == [1] * replicas


async def test_an_answer_whose_model_broke_goes_on_at_another_replica_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "randrange", lambda _: 0)
    broken = await start(ModelBroken("not finite"), opens_first=True)
    lost = await start(CoreLost("gone"), CoreLost("gone"), PromptTooLong("it got there"), opens_first=True)
    async with CoreClient(f"{broken.address},{lost.address}", Ledger.in_memory()) as client:
        stream = await client.open(OPEN)
        with pytest.raises(PromptTooLong, match="it got there"):
            await stream.logits(FIRST)
    assert (broken.asked, lost.asked) == (1, 3)


async def test_a_core_that_guesses_on_and_does_not_answer_is_given_up(start: Start) -> None:
    core = await start(guesses=2000)
    async with CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client:
        stream = await client.open(replace(OPEN, speculation=2))
        with pytest.raises(ProtocolViolation, match="only wrong guesses"):
            await stream.logits(FIRST)


async def test_what_a_core_says_is_short_and_writes_no_escape_sequence_to_a_terminal(start: Start) -> None:
    core = await start(PromptTooLong("\x1b[31mred\x07" + "x" * 5000))
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        with pytest.raises(PromptTooLong, match="red") as raised:
            await client.open(OPEN)
    said = str(raised.value)
    assert said.isprintable()
    assert len(said) < 600


async def test_between_a_full_replica_and_none_the_full_one_is_waited_for(start: Start) -> None:
    full = CoreBusy("full")
    full.retry_after_s = 0.1
    core = await start(full)
    async with CoreClient(f"{NOBODY},{core.address}", Ledger.in_memory()) as client:
        (await client.open(OPEN)).cancel()
    assert core.asked == 2


@pytest.mark.parametrize("address", ["", ",", "host:1,", "host:1,host", "a b:1"])
def test_a_list_of_addresses_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidParameter, match="write HOST:PORT"):
        CoreClient(address, Ledger.in_memory())


async def _stopping(core: FakeCore, client: CoreClient) -> asyncio.Task[None]:
    """The end of a core that has answers in progress and takes no more."""
    stopping = asyncio.create_task(core.server.stop(10))
    with suppress(CoreUnavailable):
        while True:
            await client.connect()
            await asyncio.sleep(0.01)
    return stopping


async def test_an_answer_goes_on_at_a_core_that_stops_while_others_try_to_reach_it(start: Start) -> None:
    core = await start()
    async with CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client, asyncio.timeout(20):
        answer = await client.open(OPEN)
        stopping = await _stopping(core, client)
        for _ in range(2):
            with pytest.raises(CoreUnavailable):
                await client.connect()
        await answer.commit(FIRST, [1] * 8)
        await core.was_told.wait()
        assert answer.resumed == 0
        await stopping


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[grpc.aio.Channel]:
    """All that are made."""
    made: list[grpc.aio.Channel] = []
    make = grpc.aio.insecure_channel
    monkeypatch.setattr(
        grpc.aio, "insecure_channel", lambda *args, **options: made.append(make(*args, **options)) or made[-1]
    )
    return made


def _open(channels: list[grpc.aio.Channel]) -> int:
    return sum(channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN for channel in channels)


async def test_vain_tries_leave_no_channel_behind_and_many_at_a_time_are_all_told_why(
    channels: list[grpc.aio.Channel],
) -> None:
    async def try_in(client: CoreClient, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await client.connect()

    async with CoreClient(NOBODY, Ledger.in_memory()) as client:
        for _ in range(20):
            tries = (try_in(client, 0.0005 * number) for number in range(8))
            failures = await asyncio.gather(*tries, return_exceptions=True)
            assert {type(failure) for failure in failures} == {CoreUnavailable}
        assert len(channels) > 20
        assert _open(channels) == 1
    assert _open(channels) == 0


async def test_a_channel_that_an_answer_was_left_on_is_closed_after_it(
    start: Start, channels: list[grpc.aio.Channel]
) -> None:
    core = await start()
    async with CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client, asyncio.timeout(20):
        answer = await client.open(OPEN)
        stopping = await _stopping(core, client)
        opened = []
        for _ in range(3):
            with pytest.raises(CoreUnavailable):
                await client.connect()
            opened.append(_open(channels))
            if len(opened) == 2:
                answer.cancel()
                await stopping
        assert opened == [2, 2, 1]


async def test_a_question_on_a_closed_line_fails_at_once_and_is_not_cancelled(start: Start) -> None:
    core = await start()
    client = CoreClient(core.address, Ledger.in_memory())
    answer = await client.open(OPEN)
    asking = asyncio.create_task(client.model_card("", ""))
    waiting = asyncio.create_task(answer.logits(FIRST))
    await core.was_asked.wait()
    async with asyncio.timeout(5):
        await client.__aexit__(None, None, None)
        for in_vain in (asking, waiting, client.open(OPEN), client.connect()):
            with pytest.raises(CoreLost, match="this device closed the connection"):
                await in_vain


async def test_whoever_is_cancelled_stays_cancelled(start: Start) -> None:
    core = await start()
    async with CoreClient(core.address, Ledger.in_memory()) as client:
        answer = await client.open(OPEN)
        tasks = [asyncio.create_task(client.model_card("", "")), asyncio.create_task(answer.logits(FIRST))]
        await core.was_asked.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)


class SlowGuesser(pb_grpc.CollaborationServiceServicer):
    """Sends wrong guesses, each of them in time."""

    async def Collaborate(self, requests: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        await context.read()
        await context.write(pb.CollaborateResponse(opened=pb.Opened(session_id="1")))
        for _ in range(20):
            await asyncio.sleep(0.2)
            await context.write(pb.CollaborateResponse(block_logits=pb.BlockLogits(guess=[9])))


@pytest.mark.parametrize(
    "act", [lambda stream: stream.logits(FIRST), lambda stream: stream.close()], ids=["logits", "end"]
)
async def test_guesses_do_not_hold_an_answer_longer_than_its_timeout(
    act: Callable[[ResumingStream], Coroutine[None, None, object]],
) -> None:
    server = grpc.aio.server()
    pb_grpc.add_CollaborationServiceServicer_to_server(SlowGuesser(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with CoreClient(address, Ledger.in_memory(), answer_timeout_s=0.5, patience_s=0) as client:
        stream = await client.open(replace(OPEN, speculation=16))
        started = time.monotonic()
        with suppress(CoreTimeout):
            await act(stream)
        assert 0.4 < time.monotonic() - started < 1.0
    await server.stop(0)
