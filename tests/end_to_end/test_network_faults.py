"""A network that goes away, and comes back or not: seen from both sides, and no token is another one for it."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core_server.engine.loaded_model import LoadedModel
from ssd2.models.checkpoint import load_checkpoint
from tests.core_server.conftest import open_request
from user_agent.answering.user_model import UserModel

from .conftest import CoreProcess, running_core
from .faults import Fault, answered, ended, figures, ids, let_go, question, raw_agent, switchboard
from .namespaces import NEEDS_OWN_NETWORK, OWN_NETWORK, run_apart

KEEPALIVE_S = 15
"""After which either side has to know that the other is gone: 10 s of silence, and 5 s for a ping to come back."""


@pytest.fixture(scope="module")
def cores(core_folder: Path) -> Iterator[tuple[CoreProcess, CoreProcess]]:
    options = (f"tiny={core_folder}", "--ops-port", "0")
    with running_core(*options) as first, running_core(*options) as second:
        yield first, second


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def cut_lines(core: CoreProcess) -> float:
    """How many answers have ended with their line: gRPC may show its end before it cancels the call."""
    return ended(core, "cancelled") + ended(core, "disconnected")


async def test_both_sides_give_up_a_half_open_line_and_the_answer_resumes_elsewhere(
    cores: tuple[CoreProcess, CoreProcess], user: UserModel
) -> None:
    first, second = cores
    unbroken = await answered(user, second.address, question())
    before = cut_lines(first)
    async with switchboard(first.address) as board:
        fault = Fault(lambda: board.fall_silent(second.address), 1, 5)
        broken = await answered(user, board.address, question(), fault, within_s=45)
        assert board.silenced == 1, "its two ends have not been closed by what is between them"
        await let_go(cores, KEEPALIVE_S + 10)
    assert (fault.happened, broken.resumed) == (1, 1)
    assert ids(broken) == ids(unbroken)
    assert cut_lines(first) == before + 1, figures(first)


async def test_an_agent_that_vanishes_without_a_word_while_nothing_is_on_the_way_is_let_go(
    cores: tuple[CoreProcess, CoreProcess], core_folder: Path
) -> None:
    """A ping alone finds that out: the core's own patience is longer."""
    first, second = cores
    opening = open_request(LoadedModel("tiny", load_checkpoint(core_folder)), question().params)
    before = cut_lines(first)
    async with switchboard(first.address) as board, raw_agent(board.address) as agent:
        call, _ = await agent.open(opening)
        await asyncio.sleep(3)  # what was to be acknowledged has been
        board.fall_silent(second.address)
        assert figures(first)["sessions_active"] == 1
        await let_go([first], KEEPALIVE_S + 10)
        assert board.silenced == 1, "its two ends have not been closed by what is between them"
        call.cancel()
    assert cut_lines(first) == before + 1, figures(first)


@NEEDS_OWN_NETWORK
def test_an_answer_outlives_a_network_that_was_cut(core_folder: Path, user_folder: Path) -> None:
    run_apart(OWN_NETWORK, answers_over_a_network_that_is_cut, core_folder, user_folder)


def answers_over_a_network_that_is_cut(core_folder: str, user_folder: str) -> None:
    user = UserModel.load(Path(user_folder), with_weights=True)
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as core:
        asyncio.run(_answers_over_a_network_that_is_cut(core, user))


async def _answers_over_a_network_that_is_cut(core: CoreProcess, user: UserModel) -> None:
    unbroken = await answered(user, core.address, question())
    for cut_s, resumed in ((1.0, 0), (8.0, 1)):  # for a moment, and for longer than TCP waits for its peer (5 s)
        cut = Cut(core.address, cut_s)
        fault = Fault(cut.begin, 1, 5)
        broken = await answered(user, core.address, question(), fault, within_s=45)
        assert (fault.happened, cut.refused) == (1, errno.EAGAIN), "a new connection waits as well"
        assert cut.carried_bytes[0] == cut.carried_bytes[1], "nothing got through"
        assert (ids(broken), broken.resumed) == (ids(unbroken), resumed)
        await let_go([core], KEEPALIVE_S + 10)


class Cut:
    """A network that is down for a while.

    Attributes:
        carried_bytes: that it had carried when it went down, and when it came back.
        refused: what somebody was told who wanted to connect before it came back.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self.carried_bytes: list[int] = []
        self.refused = 0

    def begin(self) -> None:
        _set_network("down")
        self.carried_bytes.append(_carried_bytes())
        asyncio.get_running_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        host, port = self._address.split(":")
        with socket.socket() as line:
            line.settimeout(0.1)
            self.refused = line.connect_ex((host, int(port)))
        self.carried_bytes.append(_carried_bytes())
        _set_network("up")


def _set_network(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)  # noqa: S607  # of this namespace


def _carried_bytes() -> int:
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])
