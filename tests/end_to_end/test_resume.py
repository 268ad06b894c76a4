"""A line to the core that breaks: the answer goes on, there or elsewhere, with the tokens it would have had."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent
from user_agent.answering.user_model import UserModel
from user_agent.errors import CoreLost
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core
from .faults import Fault, answered, ids, let_go, question, switchboard
from .processes import engine_processes


@pytest.fixture(scope="module")
def cores(core: CoreProcess, core_folder: Path) -> Iterator[tuple[CoreProcess, CoreProcess]]:
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as second:
        yield core, second


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


CHANGES = {"sampling": {}, "multi-hot": {"projection": "multi-hot", "top_p": 0.9}, "core-every": {"core_every": 3}}


@pytest.fixture(scope="module")
def unbroken(cores: tuple[CoreProcess, CoreProcess], user: UserModel) -> dict[str, Answer]:
    """What is answered with each of `CHANGES` where nothing happens."""
    first, _ = cores
    return {name: asyncio.run(answered(user, first.address, question(**CHANGES[name]))) for name in CHANGES}


@pytest.mark.parametrize(("block", "step"), [(0, 0), (1, 5), (1, None), (3, 6)])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_line_that_is_cut_costs_no_token_and_another_core_goes_on(
    cores: tuple[CoreProcess, CoreProcess],
    user: UserModel,
    unbroken: dict[str, Answer],
    block: int,
    step: int | None,
    name: str,
) -> None:
    first, second = cores
    expected = unbroken[name]
    assert len(expected.tokens) == 32, "the fault is in its middle"
    async with switchboard(first.address) as board:
        fault = Fault(lambda: board.cut(second.address), block, step)
        broken = await answered(user, board.address, question(**CHANGES[name]), fault)
        await let_go([first], 10)
    assert (fault.happened, broken.resumed) == (1, 1)
    assert ids(broken) == ids(expected)
    assert broken.bytes_up > expected.bytes_up


@pytest.mark.parametrize("how", ["server killed", "engine killed", "server told to stop"])
async def test_a_core_that_ends_in_mid_block_costs_no_token_beside_another(
    core_folder: Path,
    cores: tuple[CoreProcess, CoreProcess],
    user: UserModel,
    unbroken: dict[str, Answer],
    how: str,
) -> None:
    lasting, _ = cores
    with running_core(f"tiny={core_folder}", "--grace-s", "0") as ending:
        pid = engine_processes(ending)[0] if how == "engine killed" else ending.process.pid
        number = signal.SIGTERM if how == "server told to stop" else signal.SIGKILL
        async with switchboard(ending.address) as board:

            def end() -> None:
                os.kill(pid, number)
                board.leads_to = lasting.address  # for whoever connects from now on

            fault = Fault(end, 1, 4)
            broken = await answered(user, board.address, question(), fault)
        assert (fault.happened, broken.resumed) == (1, 1)
        expected = unbroken["sampling"]
        assert ids(broken) == ids(expected)
        await asyncio.to_thread(ending.process.wait, 20)
    await let_go([lasting], 10)


async def test_an_agent_resumes_at_the_other_replica_without_waiting(
    core_folder: Path,
    cores: tuple[CoreProcess, CoreProcess],
    user: UserModel,
    unbroken: dict[str, Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lasting, _ = cores
    monkeypatch.setattr(random, "randrange", lambda _: 0)  # the first one is asked first
    with running_core(f"tiny={core_folder}") as ending:
        fault = Fault(ending.process.kill, 1, 4)
        broken = await answered(user, f"{ending.address},{lasting.address}", question(), fault)
    assert (fault.happened, broken.resumed, fault.waits) == (1, 1, 1)
    assert ids(broken) == ids(unbroken["sampling"])


async def test_where_no_core_comes_back_the_answer_ends_with_a_typed_error_in_time(
    cores: tuple[CoreProcess, CoreProcess], user: UserModel
) -> None:
    async with switchboard(cores[0].address) as board:
        fault = Fault(lambda: board.cut("127.0.0.1:1"), 1, 4)
        async with (
            CoreClient(board.address, Ledger.in_memory(), patience_s=1.0, connect_timeout_s=1.0) as client,
            asyncio.timeout(20),
        ):
            with pytest.raises(CoreLost, match="in the middle of the answer; ask again"):
                await Agent(user, client).answer(question(), fault)
    assert fault.happened == 1
