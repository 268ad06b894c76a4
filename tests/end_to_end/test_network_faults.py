"""A network that goes away, and comes back or not: seen from both sides, and no token is another one for it."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from user_agent.user_model import UserModel

from .conftest import CoreProcess, running_core
from .faults import Fault, answered, ended, ids, let_go, question, switchboard
from .namespaces import NEEDS_NAMESPACES, OWN_NETWORK, run_apart

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


async def test_a_line_that_neither_side_ends_is_given_up_by_both_and_the_answer_goes_on_elsewhere(
    cores: tuple[CoreProcess, CoreProcess], user: UserModel
) -> None:
    first, second = cores
    unbroken = await answered(user, second.address, question())
    cancelled = ended(first, "cancelled")
    async with switchboard(first.address) as board:
        fault = Fault(lambda: board.fall_silent(second.address), 1, 5)
        broken = await answered(user, board.address, question(), fault, within_s=45)
        assert board.silenced == 1, "its two ends have not been closed by what is between them"
        await let_go(cores, KEEPALIVE_S + 10)
    assert (fault.happened, broken.resumed) == (1, 1)
    assert ids(broken) == ids(unbroken)
    assert ended(first, "cancelled") == cancelled + 1


@NEEDS_NAMESPACES
@pytest.mark.parametrize(
    ("cut_s", "resumed"), [(1.0, 0), (8.0, 1)], ids=["for a moment", "for longer than TCP waits for its peer"]
)
def test_an_answer_outlives_a_network_that_was_cut(
    core_folder: Path, user_folder: Path, cut_s: float, resumed: int
) -> None:
    run_apart(OWN_NETWORK, answer_over_a_network_that_is_cut, core_folder, user_folder, cut_s, resumed)


def answer_over_a_network_that_is_cut(core_folder: str, user_folder: str, cut_s: str, resumed: str) -> None:
    user = UserModel.load(Path(user_folder), with_weights=True)
    with running_core(f"tiny={core_folder}", "--ops-port", "0") as core:
        asyncio.run(_answer_over_a_network_that_is_cut(core, user, float(cut_s), int(resumed)))


async def _answer_over_a_network_that_is_cut(core: CoreProcess, user: UserModel, cut_s: float, resumed: int) -> None:
    unbroken = await answered(user, core.address, question())
    carried: list[int] = []
    refused: list[int] = []

    def cut() -> None:
        _set_network("down")
        carried.append(_carried_bytes())
        asyncio.get_running_loop().call_later(cut_s, bring_back)

    def bring_back() -> None:
        host, port = core.address.split(":")
        with socket.socket() as line:
            line.settimeout(0.1)
            refused.append(line.connect_ex((host, int(port))))
        carried.append(_carried_bytes())
        _set_network("up")

    fault = Fault(cut, 1, 5)
    broken = await answered(user, core.address, question(), fault, within_s=45)
    assert (fault.happened, refused) == (1, [errno.EAGAIN]), "a new connection waits as well"
    assert carried[0] == carried[1], "nothing got through"
    assert ids(broken) == ids(unbroken)
    assert broken.resumed == resumed
    await let_go([core], KEEPALIVE_S + 10)


def _set_network(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)  # noqa: S607  # of this namespace


def _carried_bytes() -> int:
    (line,) = (line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])
