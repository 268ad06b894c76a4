"""A line to the core that breaks: the answer goes on, there or elsewhere, with the tokens it would have had."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ssd2.errors import CoreError, CoreLost
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from user_agent.agent import Agent, Question
from user_agent.answer import Answer, CommittedBlock, Observer, ProjectedBlock
from user_agent.core_client import CoreClient
from user_agent.documents.passage import Passage
from user_agent.user_model import UserModel

from .conftest import CoreProcess, running_core
from .processes import engine_processes


class Switchboard:
    """A TCP address that leads to one core, and then to another; what leads to the one is cut off."""

    def __init__(self, address: str) -> None:
        self.address, self.leads_to = "", address
        self._lines: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(line := asyncio.current_task())
        with suppress(OSError, asyncio.CancelledError):
            host, _, port = self.leads_to.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            ways = [asyncio.create_task(_carry(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                far_writer.transport.abort()
                for way in ways:
                    way.cancel()
        writer.transport.abort()
        self._lines.discard(line)

    def cut(self, leads_to: str) -> None:
        """Break what there is, in the middle of whatever it carries; from now on it leads elsewhere."""
        self.leads_to = leads_to
        for line in self._lines:
            line.cancel()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)


@asynccontextmanager
async def switchboard(address: str) -> AsyncIterator[Switchboard]:
    board = Switchboard(address)
    server = await asyncio.start_server(board.connected, "127.0.0.1", 0)
    board.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield board
    board.cut("")
    server.close()


class Fault(Observer):
    """Happens once, at a block and a timestep of it; None: as the block is committed."""

    def __init__(self, happen: Callable[[], None], block: int, step: int | None) -> None:
        self._happen, self._at, self.happened, self.waits = happen, (block, step), 0, 0

    def waiting(self, error: CoreError, seconds: float) -> None:
        self.waits += 1

    def _maybe(self, block: int, step: int | None) -> None:
        if (block, step) == self._at:
            self.happened += 1
            self._happen()

    def projected(self, seen: ProjectedBlock) -> None:
        self._maybe(seen.block, seen.step)

    def committed(self, seen: CommittedBlock) -> bool:
        self._maybe(seen.block, None)
        return True


@pytest.fixture(scope="module")
def cores(core: CoreProcess, core_folder: Path) -> Iterator[tuple[CoreProcess, CoreProcess]]:
    with running_core(f"tiny={core_folder}") as second:
        yield core, second


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def question(**changes: object) -> Question:
    params = DecodingParams(block_size=8, max_tokens=32, steps=12, **changes)
    passages = [Passage("The key is in the blue drawer.", Path("notes.md"), 1)]
    return Question(
        "Where is it?", passages, CollaborationParams(0.3, 1.0), params, Seeds.reproducible(3), speculation=2
    )


async def answered(user: UserModel, address: str, asked: Question, fault: Observer | None = None) -> Answer:
    async with CoreClient(address) as client, asyncio.timeout(60):
        return await Agent(user, client).answer(asked, fault)


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
    assert (fault.happened, broken.resumed) == (1, 1)
    assert [token.token_id for token in broken.tokens] == [token.token_id for token in expected.tokens]
    assert broken.bytes_up > expected.bytes_up


@pytest.mark.parametrize("how", ["server killed", "engine killed", "server told to stop"])
async def test_a_core_that_ends_in_the_middle_of_a_block_costs_no_token_where_there_is_another(
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
        assert [token.token_id for token in broken.tokens] == [token.token_id for token in expected.tokens]
        await asyncio.to_thread(ending.process.wait, 20)


async def test_an_agent_that_knows_two_replicas_goes_on_at_the_other_without_waiting_for_the_first(
    core_folder: Path, cores: tuple[CoreProcess, CoreProcess], user: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting, _ = cores
    unbroken = await answered(user, lasting.address, question())
    monkeypatch.setattr(random, "randrange", lambda _: 0)  # the first one is asked first
    with running_core(core_folder) as core:
        fault = Fault(core.process.kill, 1, 4)
        broken = await answered(user, f"{core.address},{lasting.address}", question(), fault)
    assert (fault.happened, broken.resumed, fault.waits) == (1, 1, 1)
    assert [token.token_id for token in broken.tokens] == [token.token_id for token in unbroken.tokens]


async def test_where_no_core_comes_back_the_answer_ends_with_a_typed_error_in_time(
    cores: tuple[CoreProcess, CoreProcess], user: UserModel
) -> None:
    async with switchboard(cores[0].address) as board:
        fault = Fault(lambda: board.cut("127.0.0.1:1"), 1, 4)
        async with CoreClient(board.address, patience_s=1.0, connect_timeout_s=1.0) as client, asyncio.timeout(20):
            with pytest.raises(CoreLost, match="in the middle of the answer; ask again"):
                await Agent(user, client).answer(question(), fault)
    assert fault.happened == 1
