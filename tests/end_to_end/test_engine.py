"""The process that computes: whatever happens to it, agents are told, and nothing hangs or is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.__main__ import EXIT_ENGINE_LOST
from ssd2.errors import EngineLost
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from tests.end_to_end.conftest import CoreProcess, engine_of, running_core
from user_agent.agent import Agent, Question
from user_agent.core_client import CoreClient
from user_agent.user_model import UserModel

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    return False


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=64, steps=25)
    return Question("Where is it?", (), CollaborationParams(0.0), params, Seeds.reproducible(1))


@pytest.fixture
def core(core_folder: Path) -> Iterator[CoreProcess]:
    with running_core(core_folder, "--grace-s", "1", "--engine-timeout-s", "3") as running:
        yield running


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_end_of_the_engine_ends_the_server_and_agents_are_told(
    core: CoreProcess, user_folder: Path, how: signal.Signals
) -> None:
    """Killed, or standing still: the answer ends with a typed error, health flips, and the server with it."""
    engine = engine_of(core)
    user = UserModel.load(user_folder, with_weights=False)
    async with grpc.aio.insecure_channel(core.address) as channel, CoreClient(core.address) as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        await watch.read()

        blocks = []

        def after_a_block(text: str) -> None:
            if not blocks:
                os.kill(engine, how)
            blocks.append(text)

        with pytest.raises(EngineLost, match="has lost its engine; ask again"):
            await Agent(user, client).answer(question(), on_block=after_a_block)
        assert blocks, "the engine was at work"
        assert (await watch.read()).status == NOT_SERVING
    assert core.process.wait(timeout=20) == EXIT_ENGINE_LOST
    assert not is_running(engine)


def test_an_engine_does_not_outlive_its_server(core: CoreProcess) -> None:
    engine = engine_of(core)
    core.process.kill()
    core.process.wait(timeout=10)
    eventually(lambda: not is_running(engine))


def test_a_server_that_is_told_to_stop_takes_its_engine_along(core: CoreProcess) -> None:
    engine = engine_of(core)
    core.process.terminate()
    assert core.process.wait(timeout=20) == 0
    assert not is_running(engine)
