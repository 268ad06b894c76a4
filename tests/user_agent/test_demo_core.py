"""The demo's core beside an agent, however the agent ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.processes import is_running
from user_agent.demo_core import demo_core, exit_on_sigterm


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
        async with demo_core():
            pass

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_and_be_told)
    with pytest.raises(SystemExit):
        asyncio.run(agent())
    (core,) = started
    assert not is_running(core)
