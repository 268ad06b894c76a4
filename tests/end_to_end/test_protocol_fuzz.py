"""Sequences of messages that nobody planned, against the real service: an answer to each, and nothing stays behind.

    FUZZ_SEQUENCES=10000 .venv/bin/pytest -s tests/end_to_end/test_protocol_fuzz.py

runs that many, drawn anew each time, and prints what they came to; the usual suite runs a few, the same each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engine_client import EngineClient
from core_server.frontend.engines import Engines
from core_server.frontend.server import CoreServer
from core_server.frontend.service import SERVICE_NAME
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.projection import FIRST, StepPosition
from ssd2.errors import SENT_BY_CORES
from ssd2.logits.format import FLOAT16, UINT8, LogitsFormat
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto, position_from_proto
from tests.conftest import tiny_model
from tests.core_server.conftest import (
    Ending,
    RawAgent,
    decode_alone,
    ending,
    engine_in_this_process,
    eventually,
    open_request,
    serve_in_memory,
    serving,
)
from tests.end_to_end.processes import anonymous_mb

SEQUENCES = int(os.environ.get("FUZZ_SEQUENCES", "0"))
USUAL_SEQUENCES = 60
AT_A_TIME = 100
"""Hypothesis keeps all that it has drawn until it is done; that would hide what the core keeps."""

SLOTS, PLACES, GROWTH_MB = 3, 5, 50
BLOCK, VOCABULARY = 4, 32
PARAMS = DecodingParams(block_size=BLOCK, max_tokens=8, steps=2, stop=0.4)
STATUSES = {kind.code: grpc.StatusCode[kind.grpc_status] for kind in SENT_BY_CORES}
CLOSE = pb.CollaborateRequest(close=pb.Close()).SerializeToString()

_T = TypeVar("_T")


async def how_it_ended(call: grpc.aio.Call) -> Ending:
    return Ending(await call.code(), await call.details(), dict(await call.trailing_metadata()))


@dataclass
class Talk:
    """A stream that was opened, and how far it is.

    Attributes:
        call: of bytes, both ways.
        opening: what it was opened with.
        due: the timestep whose projection the core waits for.
        last: what was said last.
        tokens: of the last projection, where it had one token a position.
    """

    call: grpc.aio.StreamStreamCall[bytes, bytes]
    opening: pb.Open
    due: StepPosition = FIRST
    last: bytes = b""
    tokens: list[int] | None = None
    end: Ending | None = None

    def __post_init__(self) -> None:
        self.call.add_done_callback(self._keep_end)

    def _keep_end(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        """How it has ended, while that is true: grpcio makes it INTERNAL if a write fails because of it."""
        with contextlib.suppress(StopIteration):
            self._read_end(call).send(None)

    async def _read_end(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self.end = await how_it_ended(call)

    async def ended(self) -> Ending:
        """Read to the end."""
        at_last = await ending(self.call)
        return self.end or at_last

    async def say(self, data: bytes) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has ended meanwhile
            await self.call.write(data)
        self.last = data

    async def hear(self) -> bool:
        """Read the logits that are due; False if the stream has ended."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                data = await self.call.read()
                if isinstance(data, bytes):
                    message = pb.CollaborateResponse.FromString(data).block_logits
                    if message.guess and list(message.guess) != self.tokens:
                        continue
                    assert position_from_proto(message) == self.due
                    return True
            return False

    def accepts(self, data: bytes) -> bool | None:
        """Whether the contract has the core go on after this message; None if it ends the answer as it should."""
        try:
            message = pb.CollaborateRequest.FromString(data)
        except DecodeError:
            return False
        kind = message.WhichOneof("message")
        return None if kind == "close" else kind == "projection" and self._is_due(message.projection)

    def _is_due(self, message: pb.Projection) -> bool:
        counts = list(message.counts) or [1] * len(message.token_ids)
        is_last_step = message.step == len(self.opening.timesteps) - 1
        return (
            position_from_proto(message) == self.due
            and len(counts) == self.opening.block_size
            and sum(counts) == len(message.token_ids)
            and min(counts) >= 1
            and max(message.token_ids) < VOCABULARY
            and all(list(of_one) == sorted(set(of_one)) for of_one in _by_position(message.token_ids, counts))
            and not (message.is_commit and (max(counts) > 1 or message.block == self.opening.max_blocks - 1))
            and (message.is_commit or not is_last_step)
        )

    def move_on(self, data: bytes) -> None:
        projection = pb.CollaborateRequest.FromString(data).projection
        self.tokens = None if max(projection.counts, default=1) > 1 else list(projection.token_ids)
        self.due = self.due.after(is_commit=projection.is_commit)


def _by_position(token_ids: Sequence[int], counts: Sequence[int]) -> Iterator[Sequence[int]]:
    ends = list(accumulate(counts))
    return (token_ids[end - count : end] for end, count in zip(ends, counts, strict=True))


@dataclass
class World:
    """A server and its engine in this process, and who talks to them; the loop runs while somebody does."""

    loop: asyncio.AbstractEventLoop
    server: CoreServer
    engine: EngineClient
    agent: RawAgent
    served: LoadedModel
    tasks: int = 0
    expected: dict[int, list[int]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def run(self, action: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(asyncio.wait_for(action, 60))

    def stream(self) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        return self.agent.channel.stream_stream(f"/{SERVICE_NAME}/Collaborate")(timeout=30)

    def opening(self, **changes: Any) -> pb.Open:
        return open_to_proto(open_request(self.served, PARAMS, **changes))

    async def is_empty(self) -> None:
        """Wait until nothing is left of any stream: no answer, no slot, no task, no waiting report."""
        await eventually(lambda: not self.server.sessions_active and not self.engine.answers)
        await eventually(lambda: self.engine.alive is None or not self.engine.alive.slots_used)
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: len(tasks_of_the_core()) <= self.tasks)
        names = tasks_of_the_core()
        assert len(names) <= self.tasks, names


def tasks_of_the_core() -> list[str]:
    """Where the loop's tasks are, but for those of gRPC's client: a call whose write failed leaves one behind."""
    frames = [frame for task in asyncio.all_tasks() for frame in task.get_stack(limit=1)]
    return [frame.f_code.co_name for frame in frames if not frame.f_code.co_filename.endswith("aio/call.pyx.pxi")]


def is_typed(end: Ending) -> bool:
    """An error of ours, with its status and with words that say what to do."""
    return STATUSES.get(str(end.code)) is end.status and len(end.details) > 10


U32 = st.sampled_from([0, 1, 2, 3, 4, 5, 31, 32, 999, 1000, 1001, 65_536, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=BLOCK, max_size=BLOCK)
HUGE = st.just(70_000)
WILD_TOKENS = (
    st.lists(U32, max_size=9)
    | st.sampled_from([[5] * BLOCK, [5] * 7, [VOCABULARY] * BLOCK])
    | HUGE.map(lambda size: [5] * size)
)
TEXT = st.text(max_size=20) | st.sampled_from(["\n\x00\x1b[31m", "ssd-2"]) | HUGE.map(lambda size: "x" * size)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "protocol_version": U32,
    "model": TEXT,
    "family": TEXT,
    "model_sha256": TEXT,
    "vocabulary_sha256": TEXT,
    "vocab_size": U32,
    "prompt_ids": WILD_TOKENS,
    "noise_seed": st.integers(0, 2**64 - 1),
    "timesteps": st.lists(U32, max_size=5)
    | st.permutations([1000, 700, 500])
    | HUGE.map(lambda size: list(range(size))),
    "block_size": U32,
    "max_blocks": U32,
    "simplex_value": st.floats(width=32),
    "self_conditioning": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3),
    "logits_format": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 4),
    "top_k": U32,
    "speculation": U32,
    "patience": U32,
}
CHANGES = st.dictionaries(st.sampled_from(sorted(FIELDS)), st.none(), min_size=1, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)
PLACE = st.integers(0, PLACES - 1)
BYTES = (
    st.binary(max_size=40)
    | st.sampled_from([b"\x0a\xff\xff\xff\xff\x0f", b"\x12"])
    | HUGE.map(lambda size: b"\xff" * size)
)


class Conversations(RuleBasedStateMachine):
    """What agents may do to a core, in any order."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.talks = world, dict[int, Talk]()
        world.seen["sequences"] += 1

    @property
    def is_full(self) -> bool:
        return len(self.talks) >= SLOTS

    # What is as it should be.

    @rule(
        place=PLACE,
        speculation=st.integers(0, 3),
        conditioning=st.sampled_from(["own", "projection"]),
        logits_format=st.sampled_from([FLOAT16, UINT8, LogitsFormat("top-k", 8), LogitsFormat("top-k", 1024)]),
    )
    def opens(self, place: int, speculation: int, conditioning: str, logits_format: LogitsFormat) -> None:
        self.leaves(place)
        changes = {"speculation": speculation, "self_conditioning": conditioning, "logits_format": logits_format}
        expected = "core_busy" if self.is_full else "opened"
        assert self._open(place, self.world.opening(**changes)) == expected

    @initialize(speculations=st.lists(st.integers(0, 3), max_size=SLOTS) | st.just([0, 1, 3]))
    def some_are_there(self, speculations: list[int]) -> None:
        for place, speculation in enumerate(speculations):
            self.opens(place, speculation, "own", FLOAT16)

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE, tokens=TOKENS, is_early_commit=st.booleans(), is_multi_hot=st.booleans())
    def projects(self, pick: int, tokens: list[int], is_early_commit: bool, is_multi_hot: bool) -> None:
        talk, at = self._picked(pick), self._picked(pick).due
        if at.block == talk.opening.max_blocks - 1 and (is_early_commit or at.step == len(talk.opening.timesteps) - 1):
            return self._ends(pick, CLOSE)
        is_commit = is_early_commit or at.step == len(talk.opening.timesteps) - 1
        message = pb.Projection(number=at.number, block=at.block, step=at.step, is_commit=is_commit)
        message.token_ids.extend((tokens * talk.opening.block_size)[: talk.opening.block_size])
        if is_multi_hot and not is_commit:
            message.token_ids[-1] = min(message.token_ids[-1], VOCABULARY - 2)
            message.token_ids.append(VOCABULARY - 1)
            message.counts.extend([1] * (talk.opening.block_size - 1) + [2])
        data = pb.CollaborateRequest(projection=message).SerializeToString()
        assert talk.accepts(data)
        return self._say(pick, data)

    @precondition(lambda self: not self.is_full)
    @rule(seed=st.integers(0, 3))
    def is_answered_well(self, seed: int) -> None:
        """An agent that behaves has its right tokens whatever the others do."""
        world, seeds = self.world, Seeds.reproducible(seed)
        if seed not in world.expected:
            world.expected[seed] = decode_alone(world.served, PARAMS, seeds)
        assert world.run(world.agent.decode(world.served, PARAMS, seeds)) == world.expected[seed]
        world.seen["right answers"] += 1
        world.run(eventually(lambda: world.server.sessions_active == len(self.talks)))

    @precondition(lambda self: self.is_full)
    @rule()
    def is_one_too_many(self) -> None:
        assert self._open(PLACES, self.world.opening()) == "core_busy"

    # How agents leave.

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE)
    def closes(self, pick: int) -> None:
        self._ends(pick, CLOSE)

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE)
    def half_closes(self, pick: int) -> None:
        talk = self._gone(pick)
        self.world.run(talk.call.done_writing())
        assert self.world.run(talk.ended()).status is grpc.StatusCode.OK
        self._is_let_go()

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE, tokens=TOKENS)
    def cancels_while_the_core_computes(self, pick: int, tokens: list[int]) -> None:
        talk = self._gone(pick)
        at = talk.due
        message = pb.Projection(number=at.number, block=at.block, step=at.step, token_ids=tokens)
        self.world.run(talk.say(pb.CollaborateRequest(projection=message).SerializeToString()))
        talk.call.cancel()
        self._is_let_go()

    @rule(place=PLACE)
    def leaves(self, place: int) -> None:
        if place in self.talks:
            self.talks.pop(place).call.cancel()
            self._is_let_go()

    # What is not as it should be.

    @rule(place=PLACE, changes=CHANGES)
    def opens_somehow(self, place: int, changes: dict[str, Any]) -> None:
        self.leaves(place)
        opening = self.world.opening()
        for name, value in changes.items():
            if isinstance(value, list):
                opening.ClearField(name)
                getattr(opening, name).extend(value)
            else:
                setattr(opening, name, value)
        self._open(place, opening)

    @rule(data=BYTES | st.just(CLOSE), is_cut=st.booleans())
    def begins_with_something_else(self, data: bytes, is_cut: bool) -> None:
        opening = pb.CollaborateRequest(open=self.world.opening()).SerializeToString()
        talk = Talk(self.world.stream(), self.world.opening())
        self.world.run(talk.say(opening[: len(opening) // 2] if is_cut else data))
        self._refused(self.world.run(talk.ended()))

    @precondition(lambda self: self.talks)
    @rule(
        pick=PLACE,
        moved=st.sampled_from([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**31, 0, 0), (0, 2**31, 2**31)]),
        tokens=WILD_TOKENS,
        counts=st.lists(U32, max_size=5) | st.sampled_from([[], [1] * BLOCK, [2, 1, 1, 0], [2**32 - 1] * BLOCK]),
        is_commit=st.booleans(),
    )
    def projects_somehow(
        self, pick: int, moved: Sequence[int], tokens: list[int], counts: list[int], is_commit: bool
    ) -> None:
        at = self._picked(pick).due
        number, block, step = (value + by for value, by in zip((at.number, at.block, at.step), moved, strict=True))
        message = pb.Projection(
            number=number, block=block, step=step, token_ids=tokens, counts=counts, is_commit=is_commit
        )
        self._say(pick, pb.CollaborateRequest(projection=message).SerializeToString())

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE, data=BYTES, how=st.sampled_from(["bytes", "again", "cut", "open"]))
    def says_something_else(self, pick: int, data: bytes, how: str) -> None:
        talk = self._picked(pick)
        opening = pb.CollaborateRequest(open=talk.opening).SerializeToString()
        said = {"bytes": data, "again": talk.last, "cut": talk.last[: len(talk.last) // 2], "open": opening}[how]
        self._say(pick, said)

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE, data=st.binary(max_size=40), count=st.integers(2, 40))
    def talks_without_listening(self, pick: int, data: bytes, count: int) -> None:
        """Many messages at once: the first that is wrong ends the stream, whatever is behind it.

        What the core made of it is asked of the core: grpcio may tell whoever writes on INTERNAL (grpc/grpc#36066).
        """
        talk, before = self._gone(pick), self._violations()
        wrong = bytes([0xFF]) + data  # a wire type that there is not
        self.world.run(self._all_said(talk, [wrong] * count))
        end = self.world.run(talk.ended())
        assert end.status is grpc.StatusCode.INTERNAL or is_typed(end), end
        self.world.run(eventually(lambda: self._violations() == before + 1))
        self._is_let_go()

    @precondition(lambda self: self.talks)
    @rule(pick=PLACE, tokens=TOKENS, count=st.integers(1, 6))
    def answers_all_that_it_is_sent(self, pick: int, tokens: list[int], count: int) -> None:
        """Guesses too, whatever projection they assume: the core goes on or refuses, and is there for the others."""
        talk, ends = self._gone(pick), self.world.server.observation.metrics.sessions_ended
        self.world.run(self._all_answered(talk, tokens, count))
        end = self.world.run(talk.ended())
        assert end.status in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL) or is_typed(end), end
        assert not ends["tiny", "internal"], "an INTERNAL is grpcio's own, as above"
        self._count("answered all")
        self._is_let_go()

    async def _all_answered(self, talk: Talk, tokens: list[int], count: int) -> None:
        at = talk.due
        for by in range(count):
            is_commit = at.step == len(talk.opening.timesteps) - 1
            message = pb.Projection(number=at.number, block=at.block, step=at.step, is_commit=is_commit)
            message.token_ids.extend((token + by) % VOCABULARY for token in tokens)
            await talk.say(pb.CollaborateRequest(projection=message).SerializeToString())
            with contextlib.suppress(grpc.aio.AioRpcError):
                data = await talk.call.read()
                if isinstance(data, bytes):
                    at = position_from_proto(pb.CollaborateResponse.FromString(data).block_logits)
                    continue
            return
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await talk.call.done_writing()

    def _violations(self) -> int:
        return self.world.server.observation.metrics.sessions_ended["tiny", "protocol_violation"]

    @rule(request=BYTES | TEXT.map(lambda text: pb.GetModelCardRequest(model=text, family=text).SerializeToString()))
    def asks_for_a_model(self, request: bytes) -> None:
        call = self.world.agent.channel.unary_unary(f"/{SERVICE_NAME}/GetModelCard")(request, timeout=30)
        end = self.world.run(how_it_ended(call))
        assert end.status is grpc.StatusCode.OK or is_typed(end), end

    @rule(data=BYTES, is_http2=st.booleans())
    def sends_no_grpc(self, data: bytes, is_http2: bool) -> None:
        with socket.create_connection(("127.0.0.1", self.world.agent.port), 5) as line:
            line.sendall((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if is_http2 else b"") + data)
        self.world.run(asyncio.sleep(0))

    def teardown(self) -> None:
        for talk in self.talks.values():
            talk.call.cancel()
        self.talks.clear()
        self.world.run(self.world.is_empty())
        if not self.world.seen["sequences"] % 500:
            print(f"{self.world.seen['sequences']} sequences, {held_mb():.0f} MB, {time.process_time():.0f} s")

    def _picked(self, pick: int) -> Talk:
        return self.talks[self._place(pick)]

    def _gone(self, pick: int) -> Talk:
        return self.talks.pop(self._place(pick))

    def _place(self, pick: int) -> int:
        return sorted(self.talks)[pick % len(self.talks)]

    def _open(self, place: int, opening: pb.Open) -> str:
        """Open a stream; what came of it."""
        talk = Talk(self.world.stream(), opening, last=pb.CollaborateRequest(open=opening).SerializeToString())
        if not self.world.run(self._opened(talk)):
            return self._refused(self.world.run(talk.ended()))
        assert not self.is_full
        self.talks[place] = talk
        return self._count("opened")

    async def _opened(self, talk: Talk) -> bool:
        await talk.say(talk.last)
        with contextlib.suppress(grpc.aio.AioRpcError):
            data = await talk.call.read()
            if isinstance(data, bytes):
                assert pb.CollaborateResponse.FromString(data).opened.session_id
                return await talk.hear()
        return False

    async def _all_said(self, talk: Talk, messages: Sequence[bytes]) -> None:
        for data in messages:
            await talk.say(data)

    def _say(self, pick: int, data: bytes) -> None:
        """Say something, and see that the core goes on, ends the answer or refuses, as it should."""
        talk, accepted = self._picked(pick), self._picked(pick).accepts(data)
        if accepted is None:
            self._ends(pick, data)
            return
        if accepted:
            talk.move_on(data)
        self.world.run(talk.say(data))
        went_on = self.world.run(talk.hear()) if accepted else False
        assert went_on is accepted
        if accepted:
            self._count("went on")
        else:
            self._refused(self.world.run(self._gone(pick).ended()))

    def _ends(self, pick: int, close: bytes) -> None:
        talk = self._gone(pick)
        self.world.run(talk.say(close))
        assert self.world.run(talk.ended()).status is grpc.StatusCode.OK
        self._count("closed")
        self._is_let_go()

    def _refused(self, end: Ending) -> str:
        note(f"refused: {end}")
        assert is_typed(end), end
        self._is_let_go()
        return self._count(str(end.code))

    def _is_let_go(self) -> None:
        self.world.run(eventually(lambda: self.world.server.sessions_active == len(self.talks)))

    def _count(self, what: str) -> str:
        self.world.seen[what] += 1
        return what


async def _tasks() -> int:
    return len(tasks_of_the_core())


@pytest.fixture
def world() -> Iterator[World]:
    loop, stack = asyncio.new_event_loop(), contextlib.AsyncExitStack()
    served = serve_in_memory(tiny_model(3, max_positions=64))

    async def begin() -> World:
        config = ServerConfig({}, max_sessions=SLOTS, grace_s=0.0)
        engine = await stack.enter_async_context(engine_in_this_process(served, slots=SLOTS))
        server, agent = await stack.enter_async_context(serving(Engines([engine]), config))
        begun = World(loop, server, engine, agent, served)
        await agent.decode(served, PARAMS, Seeds.reproducible(0))
        await asyncio.sleep(0.1)
        return begun

    logging.disable()  # pytest keeps every line; that too would hide what the core keeps
    asyncio.set_event_loop(loop)  # which gRPC asks for where a call is made while the loop does not run
    begun = loop.run_until_complete(begin())
    begun.tasks = begun.run(_tasks())
    yield begun
    loop.run_until_complete(stack.aclose())
    asyncio.set_event_loop(None)
    loop.close()
    logging.disable(logging.NOTSET)


def play(world: World, sequences: int) -> None:
    how = settings(
        max_examples=min(sequences, AT_A_TIME),
        stateful_step_count=12,
        deadline=None,
        database=None,
        derandomize=not SEQUENCES,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    for _ in range(math.ceil(sequences / AT_A_TIME)):
        run_state_machine_as_test(lambda: Conversations(world), settings=how)


def held_mb() -> float:
    """Memory that this process needs: what it has freed, and the C library keeps for later, is not in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous_mb(os.getpid())


def test_whatever_agents_say_each_is_answered_and_nothing_stays_behind(world: World) -> None:
    sequences, began = SEQUENCES or USUAL_SEQUENCES, time.process_time()
    play(world, max(1, sequences // 5))  # whatever is allocated once
    before = held_mb()
    play(world, sequences - sequences // 5)
    growth = held_mb() - before
    print(f"\n{dict(world.seen)}\n{growth:.1f} MB more, {time.process_time() - began:.0f} s of processor time")
    assert growth < GROWTH_MB
    assert min(world.seen[what] for what in ("right answers", "went on", "closed", "core_busy", "answered all")) > 0
    assert world.seen["protocol_violation"] > world.seen["sequences"] / 10
