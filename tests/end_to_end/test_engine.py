"""The process that computes: whatever happens to it, agents are told, and nothing hangs or is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.__main__ import EXIT_ENGINE_LOST
from ssd2.errors import CoreStopping, EngineLost
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from tests.end_to_end.conftest import CoreProcess, running_core
from tests.end_to_end.processes import engine_processes, is_running
from user_agent.agent import Agent, Question
from user_agent.answer import CommittedBlock, Observer
from user_agent.core_client import CoreClient
from user_agent.user_model import UserModel

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


TWO_RANKS, TWO_ENGINES = ("--tensor-parallel", "2"), ("--replicas", "2")


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=64, steps=25, stop=0.4)
    return Question("Where is it?", (), CollaborationParams(0.0), params, Seeds.reproducible(1))


@pytest.fixture
def core(core_folder: Path, request: pytest.FixtureRequest) -> Iterator[CoreProcess]:
    with running_core(core_folder, "--grace-s", "1", "--engine-timeout-s", "5", *request.param) as running:
        yield running


@pytest.mark.parametrize(
    ("core", "victim", "how"),
    [
        pytest.param((), 0, signal.SIGKILL, id="killed"),
        pytest.param((), 0, signal.SIGSTOP, id="stopped"),
        # Which of the two computes is not known here: its answer fails, or the server's end comes before the answer's.
        pytest.param(TWO_ENGINES, 0, signal.SIGKILL, id="one-of-two-killed", marks=pytest.mark.slow),
        pytest.param(TWO_ENGINES, 1, signal.SIGKILL, id="other-of-two-killed", marks=pytest.mark.slow),
        pytest.param(TWO_RANKS, 0, signal.SIGKILL, id="torchrun-killed", marks=pytest.mark.slow),
        pytest.param(TWO_RANKS, 1, signal.SIGKILL, id="first-rank-killed", marks=pytest.mark.slow),
        pytest.param(TWO_RANKS, 2, signal.SIGKILL, id="second-rank-killed", marks=pytest.mark.slow),
        pytest.param(TWO_RANKS, 2, signal.SIGSTOP, id="second-rank-stopped", marks=pytest.mark.slow),
    ],
    indirect=["core"],
)
async def test_the_end_of_the_engine_ends_the_server_and_agents_are_told(
    core: CoreProcess, user_folder: Path, victim: int, how: signal.Signals
) -> None:
    """Killed, or standing still: the answer ends with a typed error, health flips, and the server with it."""
    processes = engine_processes(core)
    user = UserModel.load(user_folder, with_weights=False)
    async with grpc.aio.insecure_channel(core.address) as channel, CoreClient(core.address, patience_s=0) as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        await watch.read()

        blocks = []

        class Fault(Observer):
            def committed(self, seen: CommittedBlock) -> bool:
                if not blocks:
                    os.kill(processes[victim], how)
                blocks.append(seen.text)
                return True

        with pytest.raises((EngineLost, CoreStopping), match=r"(has lost its engine|is being stopped); ask again"):
            async with asyncio.timeout(40):
                await Agent(user, client).answer(question(), Fault())
        assert blocks, "the engine was at work"
        assert (await watch.read()).status == NOT_SERVING
    assert core.process.wait(timeout=40) == EXIT_ENGINE_LOST
    eventually(lambda: not any(is_running(pid) for pid in processes))


one_process_or_two_ranks = pytest.mark.parametrize(
    "core",
    [pytest.param((), id="one-process"), pytest.param(TWO_RANKS, id="two-ranks", marks=pytest.mark.slow)],
    indirect=True,
)


@one_process_or_two_ranks
def test_an_engine_does_not_outlive_its_server(core: CoreProcess) -> None:
    processes = engine_processes(core)
    core.process.kill()
    core.process.wait(timeout=10)
    eventually(lambda: not any(is_running(pid) for pid in processes))


@one_process_or_two_ranks
def test_a_server_that_is_told_to_stop_takes_its_engine_along(core: CoreProcess) -> None:
    processes = engine_processes(core)
    core.process.terminate()
    assert core.process.wait(timeout=20) == 0
    assert not any(is_running(pid) for pid in processes)
