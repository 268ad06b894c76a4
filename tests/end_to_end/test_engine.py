"""The process that computes: whatever happens to it, agents are told, and nothing hangs or is left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.__main__ import EXIT_ENGINE_LOST
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreStopping, EngineLost
from tests.end_to_end import faults
from tests.end_to_end.conftest import ENVIRONMENT, CoreProcess, running_core
from tests.end_to_end.faults import answered, figures
from tests.end_to_end.processes import engine_processes, is_running
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

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
    async with (
        grpc.aio.insecure_channel(core.address) as channel,
        CoreClient(core.address, Ledger.in_memory(), patience_s=0) as client,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        await watch.read()

        blocks = []

        class Fault(Observer):
            def committed(self, seen: CommittedBlock) -> bool:
                if not blocks:
                    os.kill(processes[victim], how)
                blocks.append(seen.text)
                return True

        with pytest.raises((EngineLost, CoreStopping), match=r"(has lost its engine|is shutting down); ask again"):
            async with asyncio.timeout(40):
                await Agent(user, client).answer(question(), Fault())
        assert blocks, "the engine was at work"
        assert (await watch.read()).status == NOT_SERVING
    assert core.process.wait(timeout=40) == EXIT_ENGINE_LOST
    eventually(lambda: not any(is_running(pid) for pid in processes))


def leftovers(core: CoreProcess, folder: Path) -> tuple[int, int, int]:
    """Engines of a server, their sockets, and the folders for these."""
    sockets = Path("/proc/net/unix").read_text().count(f"{folder}/core-server-")
    return len(engine_processes(core)), sockets, leftover_folders(folder)


def leftover_folders(folder: Path) -> int:
    return len(list(folder.glob("core-server-*")))


def once_both_are_there(happen: Callable[[], object]) -> faults.Fault:
    arrived = itertools.count(1)
    # Early in the answers, so that on a busy machine the first is not over before the second gets there.
    return faults.Fault(lambda: next(arrived) == 2 and happen(), 0, 6)


def of_both(core: CoreProcess, name: str) -> float:
    """A figure of a server's engines, added up."""
    seen = figures(core)
    return sum(seen[f'{name}{{engine="{number}"}}'] for number in (0, 1))


@pytest.mark.parametrize(
    ("how", "losses"),
    [
        pytest.param(signal.SIGKILL, 1, id="killed"),
        pytest.param(signal.SIGKILL, 2, id="both-killed", marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 2, id="stuck", marks=pytest.mark.slow),
    ],
)
async def test_one_engine_of_two_ends_and_no_answer_loses_a_token(
    core_folder: Path, user_folder: Path, tmp_path: Path, how: signal.Signals, losses: int
) -> None:
    """Where both are lost, one after the other; each is there again before the next, and nothing of it is left."""
    user, environment = UserModel.load(user_folder, with_weights=True), {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    options = ("--replicas", "2", "--max-sessions", "4", "--engine-timeout-s", "5", "--ops-port", "0")
    with running_core(f"tiny={core_folder}", *options, environment=environment) as core:
        expected = await answered(user, core.address, faults.question())
        before = leftovers(core, tmp_path)
        assert before == (2, 4, 2), "of each one that listens and one that is connected"
        for lost in range(1, losses + 1):
            victim = min(engine_processes(core))  # the older one, so that each has its turn
            both = once_both_are_there(partial(os.kill, victim, how))
            # One on each engine, as each goes to the one that has the fewest.
            answers = await asyncio.gather(
                *(answered(user, core.address, faults.question(), both, patience_s=60) for _ in range(2))
            )
            assert [faults.ids(answer) for answer in answers] == [faults.ids(expected)] * 2
            assert sorted(answer.resumed for answer in answers) == [0, 1]
            await faults.until(lambda lost=lost: of_both(core, "engine_restarts_total") == lost, 60)
            assert not is_running(victim)
            assert of_both(core, "engine_running") == 2
            await faults.let_go([core], 20)  # else both of the next ones may go to the engine that is lost no more
        eventually(lambda: leftovers(core, tmp_path) == before)
        assert faults.ids(await answered(user, core.address, faults.question())) == faults.ids(expected)
        core.process.terminate()
        assert core.process.wait(timeout=20) == 0
    assert leftover_folders(tmp_path) == 0


@pytest.mark.slow
def test_the_end_of_both_engines_ends_the_server(core_folder: Path) -> None:
    with running_core(core_folder, *TWO_ENGINES, "--grace-s", "1") as core:
        processes = engine_processes(core)
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
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
