"""The demo's core beside an agent, however either of them ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import is_running
from user_agent.config import load_config
from user_agent.errors import OwnCoreEnded
from user_agent.line import line as core_line
from user_agent.line import own_core
from user_agent.line.connection import CoreConnection
from user_agent.line.line import CoreLine
from user_agent.line.own_core import exit_on_sigterm
from user_agent.line.settings import LineSettings
from user_agent.store.ledger import Ledger


@pytest.fixture(autouse=True)
def _as_in_an_agent() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    exit_on_sigterm()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_agent_that_is_to_outlive_its_terminal_does() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    exit_on_sigterm()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_an_agent_that_is_told_to_end_while_it_starts_its_core_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, told: signal.Signals
) -> None:
    create, started = asyncio.create_subprocess_exec, list[int]()

    async def create_and_be_told(*arguments: Any, **more: Any) -> asyncio.subprocess.Process:
        process = await create(*arguments, **more)
        started.append(process.pid)
        os.kill(os.getpid(), told)
        return process

    async def agent() -> None:
        async with own_core.own_core():
            pass

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_and_be_told)
    with pytest.raises(SystemExit):
        asyncio.run(agent())
    (core,) = started
    assert not is_running(core)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[[], list[list[str]]]]:
    """Has a program in place of the core; gives what tells of each start: the process, and what it was given."""
    notes = tmp_path / "starts"
    notes.touch()
    note = f"import os, sys, time; print(os.getpid(), *sys.argv[1:], file=open({str(notes)!r}, 'a')); "
    monkeypatch.setattr(own_core, "RESTART_DELAYS_S", (0.0, 0.0, 0.0))

    def run(program: str) -> Callable[[], list[list[str]]]:
        monkeypatch.setattr(own_core, "_COMMAND", (sys.executable, "-c", note + program))
        return lambda: [line.split() for line in notes.read_text().splitlines()]

    return run


with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]  # where nobody listens
SERVES = f"print('listening on 127.0.0.1:{PORT}', flush=True); time.sleep(60)"
ENDS = f"print('listening on 127.0.0.1:{PORT}', flush=True)"
LOADS_THE_SECOND_TIME = f"time.sleep(60) if '{PORT}' in sys.argv else None; {SERVES}"


async def until(happens: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not happens():  # noqa: ASYNC110 - another process tells of it in a file
            await asyncio.sleep(0.02)


async def test_a_core_that_is_killed_is_started_again_at_its_address(starts: Any) -> None:
    started = starts(SERVES)
    async with own_core.own_core() as core:
        (first,) = started()
        os.kill(int(first[0]), signal.SIGKILL)
        await until(lambda: len(started()) == 2 and not core.failure)
        second = started()[1]
        assert core.address == f"127.0.0.1:{second[second.index('--port') + 1]}"
        assert is_running(int(second[0]))
    assert not any(is_running(int(pid)) for pid, *_ in started())


async def test_a_core_that_ends_again_and_again_is_given_up_and_that_is_said(starts: Any) -> None:
    started = starts(ENDS)
    async with own_core.own_core() as core:
        await until(lambda: core.failure and core.failure.retry_after_s is None)
        assert len(started()) == 4
        assert "4 times in a row" in str(core.failure)


async def test_only_ends_that_follow_each_other_quickly_count(starts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = starts(ENDS)
    monkeypatch.setattr(own_core, "STEADY_S", 0.0)
    async with own_core.own_core() as core:
        await until(lambda: len(started()) > 6)
        assert core.failure is None or core.failure.retry_after_s


async def test_an_agent_that_ends_while_its_core_is_started_again_leaves_none_behind(starts: Any) -> None:
    started = starts(LOADS_THE_SECOND_TIME)
    async with own_core.own_core() as core:
        os.kill(int(started()[0][0]), signal.SIGKILL)
        await until(lambda: len(started()) == 2)
        assert core.failure
    assert not any(is_running(int(pid)) for pid, *_ in started())


@pytest.mark.parametrize("why_not", [None, own_core.given_up], ids=["just ended", "given up"])
async def test_the_line_to_a_core_that_ended_says_so_and_nothing_of_options(
    starts: Any, monkeypatch: pytest.MonkeyPatch, why_not: Callable[[], OwnCoreEnded] | None
) -> None:
    starts(SERVES)
    monkeypatch.setattr(core_line, "RESTART_PATIENCE_S", 0.0)
    line = CoreLine(None)  # type: ignore[arg-type]  # no ledger: nothing is sent, as nobody listens there
    await line.connect(load_config(core=None))
    line._own._why_not = why_not
    try:
        assert line.is_demo
        for asked in (line.client.model_card("", "ssd-2"), line.client.connect()):
            with pytest.raises(OwnCoreEnded, match="the demo's core ended") as caught:
                await asked
            assert "--" not in str(caught.value)
            assert caught.value.retry_after_s == (None if why_not else 1.0)
    finally:
        await line.close()


async def test_a_core_that_was_given_up_is_not_dialled_and_each_refusal_is_a_new_error(
    starts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have taken the port; and one error raised again and again would hold all questions."""
    starts(SERVES)
    line, refusals, dialled = CoreLine(None), list[OwnCoreEnded](), list[CoreConnection]()  # type: ignore[arg-type]
    await line.connect(load_config(core=None))

    async def dial(connection: CoreConnection) -> None:
        dialled.append(connection)

    monkeypatch.setattr(CoreConnection, "connect", dial)
    try:
        line._own._why_not = own_core.given_up
        for _ in range(2):
            with pytest.raises(OwnCoreEnded, match="will not be restarted") as caught:
                await line.client.connect()
            refusals.append(caught.value)
        assert not dialled
        assert refusals[0] is not refusals[1]
    finally:
        await line.close()


async def test_a_core_of_its_own_may_take_its_time() -> None:
    own, ledger = own_core.OwnCore(), Ledger.in_memory()
    own.address = "127.0.0.1:1"
    for timeout, expected in ((1.0, 120.0), (600.0, 600.0)):
        client = core_line._OwnClient(own, LineSettings(timeout=timeout), ledger)
        assert client._connections[0]._answer_timeout_s == expected
