"""Agents that freeze, that do not read, and far too many of them: the core lets go of them, and of nobody else."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.service import ABORT_TIMEOUT_S
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import CoreBusy, CoreError
from ssd2.models.checkpoint import load_checkpoint
from ssd2.wire import collaboration_pb2 as pb
from tests.core_server.conftest import Ending, ending, open_request
from user_agent.answering.user_model import UserModel
from user_agent.line import connection as core_connection
from user_agent.line.stream import CoreStream

from .conftest import CoreProcess, running_core
from .faults import (
    Fault,
    answered,
    asking,
    ended,
    figures,
    ids,
    in_the_middle,
    let_go,
    question,
    raw_agent,
    result,
    switchboard,
    told_bytes,
    until,
)

SLOTS, CROWD = 4, 100
IMPATIENT_S = 3.0
FROZEN_S, STEPS = 60, 60
KEEPALIVE_S = 15
FRAME_BYTES = 8 * 1782 * 2
DOWN = 'message_bytes_total{direction="down"}'
LET_GO = [f'sessions_ended_total{{end="{end}",model="tiny"}}' for end in ("core_timeout", "cancelled", "disconnected")]


@pytest.fixture(scope="module")
def core(core_folder: Path) -> Iterator[CoreProcess]:
    """A core that is impatient, and has few places."""
    options = ("--ops-port", "0", "--max-sessions", str(SLOTS), "--answer-timeout-s", str(IMPATIENT_S))
    with running_core(f"tiny={core_folder}", *options) as running:
        yield running


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def freeze_and_thaw(core: CoreProcess, user_folder: Path, let_go_s: float, frozen_s: float) -> None:
    """An agent that stands still in the middle of its answer is let go, and then has its answer all the same."""
    unbroken, _ = await asyncio.to_thread(result, asking(core, user_folder, steps=STEPS))
    before = told_bytes(core)
    agent = asking(core, user_folder, steps=STEPS)
    try:
        await in_the_middle(core, before)
        agent.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        assert figures(core)["sessions_active"] == 1
        await let_go([core], let_go_s)
        assert state_of(agent.pid) == "T"
        assert agent.poll() is None
        await asyncio.sleep(frozen_s - (time.monotonic() - frozen_at))
        agent.send_signal(signal.SIGCONT)
        token_ids, resumed = await asyncio.to_thread(result, agent)
        assert token_ids == unbroken
        assert resumed > 0
    finally:
        agent.kill()
    await let_go([core], 10)


async def test_an_agent_that_freezes_is_let_go_and_goes_on_when_it_thaws(core: CoreProcess, user_folder: Path) -> None:
    before = figures(core)
    await freeze_and_thaw(core, user_folder, IMPATIENT_S + 10, frozen_s=0)
    assert sum(figures(core)[end] - before[end] for end in LET_GO) > 0


@pytest.mark.soak
async def test_an_agent_that_is_frozen_for_a_minute_is_let_go_by_keepalive_and_goes_on(
    core_folder: Path, user_folder: Path
) -> None:
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as patient:
        await freeze_and_thaw(patient, user_folder, KEEPALIVE_S + 10, FROZEN_S)
        assert ended(patient, "cancelled") + ended(patient, "disconnected") == 1
        assert ended(patient, "core_timeout") == 0


async def tell(call: grpc.aio.StreamStreamCall, projections: int) -> None:
    """Tell one projection after the other, whatever comes back; each takes 28 kB of logits down."""
    for number in range(projections):
        message = pb.Projection(number=number, block=0, step=number, token_ids=[5] * 8)
        await call.write(pb.CollaborateRequest(projection=message))


async def listen(call: grpc.aio.StreamStreamCall) -> Ending:
    return await ending(call)


@pytest.mark.parametrize("reads", ["nothing", "a byte a second"])
async def test_an_agent_that_never_reads_is_dropped_and_others_are_answered(
    core: CoreProcess, core_folder: Path, user: UserModel, reads: str
) -> None:
    loaded = LoadedModel("tiny", load_checkpoint(core_folder))
    opening = open_request(loaded, DecodingParams(block_size=8, max_tokens=8, steps=600, stop=0.4))
    unbroken = await answered(user, core.address, question())
    before = figures(core)
    async with switchboard(core.address) as board, raw_agent(board.address) as agent:
        call, _ = await agent.open(opening)
        if reads == "a byte a second":
            board.trickle_down(1.0)
            tasks = {asyncio.create_task(listen(call)), asyncio.create_task(tell(call, 599))}
        else:
            tasks = {asyncio.create_task(tell(call, 599))}
        assert figures(core)["sessions_active"] == 1
        meanwhile = await answered(user, core.address, question())
        assert ids(meanwhile) == ids(unbroken)
        await let_go([core], 25)  # the agent itself would hang up after 30 s
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        call.cancel()
    sent = figures(core)[DOWN] - before[DOWN]
    assert FRAME_BYTES < sent < 599 * FRAME_BYTES, "the core had more to say"
    # By its own deadline, or by TCP's where the kernel's buffers are full before gRPC's window is.
    assert sum(figures(core)[end] - before[end] for end in LET_GO) == 1 + meanwhile.resumed


async def test_a_core_that_is_told_to_stop_does_not_wait_for_an_agent_that_does_not_read(core_folder: Path) -> None:
    opening = open_request(
        LoadedModel("tiny", load_checkpoint(core_folder)),
        DecodingParams(block_size=8, max_tokens=8, steps=600, stop=0.4),
    )
    with running_core(f"tiny={core_folder}", "--ops-port", "0", "--grace-s", "1") as stopping:
        async with raw_agent(stopping.address) as agent:
            call, _ = await agent.open(opening)
            telling = asyncio.create_task(tell(call, 599))
            await until(lambda: figures(stopping)[DOWN] > 2 * FRAME_BYTES, 20)
            stopping.process.terminate()
            assert await asyncio.to_thread(stopping.process.wait, 1 + ABORT_TIMEOUT_S + 10) == 0
            assert not call.done(), "it has read nothing to the end"
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            call.cancel()


async def test_a_line_of_a_byte_a_second_ends_in_time_with_a_typed_error(core: CoreProcess, user: UserModel) -> None:
    async with switchboard(core.address) as board:
        fault = Fault(lambda: board.trickle_down(1.0), 1, 5)
        with pytest.raises(CoreError, match="ask again"):
            await answered(user, board.address, question(), fault, answer_timeout_s=2.0, patience_s=1.0, within_s=20)
    assert fault.happened == 1
    await let_go([core], 10)


async def test_100_agents_over_the_limit_are_refused_and_others_finish(
    core_folder: Path, user: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_core(f"tiny={core_folder}", "--ops-port", "0", "--max-sessions", str(SLOTS)) as core:
        unbroken = await answered(user, core.address, question())
        go_on, tell = asyncio.Event(), CoreStream.tell

        async def tell_when_let(*arguments: Any, **more: Any) -> None:
            await go_on.wait()
            await tell(*arguments, **more)

        monkeypatch.setattr(CoreStream, "tell", tell_when_let)
        inside = [asyncio.create_task(answered(user, core.address, question(), within_s=180)) for _ in range(SLOTS)]
        await until(lambda: figures(core)["sessions_active"] == SLOTS, 60)
        refusals = await crowd(core, user)
        shared = [option for option in core_connection._OPTIONS if option[0] != "grpc.use_local_subchannel_pool"]
        monkeypatch.setattr(core_connection, "_OPTIONS", shared)
        refusals += await crowd(core, user)  # all on one connection, as behind a gateway: a process shares them
        others = [repr(error) for error in refusals if type(error) is not CoreBusy]
        assert others == [], others
        assert all("limit of 4 answers at a time; ask again in a moment" in str(error) for error in refusals)
        assert figures(core)['rejected_total{reason="core_busy"}'] == 2 * CROWD
        assert not any(answer.done() for answer in inside)
        go_on.set()
        answers = await asyncio.gather(*inside)
        assert [ids(answer) for answer in answers] == [ids(unbroken)] * SLOTS
        await let_go([core], 10)
        assert ids(await answered(user, core.address, question())) == ids(unbroken)


async def crowd(core: CoreProcess, user: UserModel) -> list[object]:
    """What many agents are told who all come at once."""
    asked = question(lambda_user=0.0)
    at_once = {"connect_timeout_s": 20.0, "patience_s": 0, "within_s": 40}
    each = (answered(user, core.address, asked, **at_once) for _ in range(CROWD))
    return await asyncio.gather(*each, return_exceptions=True)
