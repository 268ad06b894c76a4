"""A core server that can be seen: its figures, its readiness and its log, as processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreStopping, EngineLost
from tests.end_to_end.conftest import CoreProcess, recording_relay, running_core
from tests.end_to_end.faults import figures
from tests.end_to_end.processes import engine_processes
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

OPS = ("--ops-port", "0", "--threads", "1")
TEXT, NOISE_SEED = "Where is the Zq9sentinel?", 8_765_432_101_234


def question(text: str = TEXT) -> Question:
    params = DecodingParams(block_size=8, max_tokens=64, steps=5, stop=0.4)
    return Question(text, (), CollaborationParams(0.0), params, Seeds(noise=NOISE_SEED, sampling=3))


@pytest.fixture
def core(core_folder: Path, request: pytest.FixtureRequest) -> Iterator[CoreProcess]:
    with running_core(f"tiny={core_folder}", *OPS, *getattr(request, "param", ())) as running:
        yield running


@asynccontextmanager
async def agent_of(address: str, user_folder: Path) -> AsyncIterator[Agent]:
    async with CoreClient(address, Ledger.in_memory()) as client:
        yield Agent(UserModel.load(user_folder, with_weights=False), client)


def readiness(core: CoreProcess) -> int | None:
    """Its status; None if nothing answers there any more."""
    try:
        return httpx.get(f"{core.ops}/ready", trust_env=False).status_code
    except httpx.TransportError:
        return None


async def test_the_figures_of_an_answer_are_what_crossed_the_wire(core: CoreProcess, user_folder: Path) -> None:
    async with recording_relay(core.address) as wire, agent_of(wire.address, user_folder) as agent:
        await agent.answer(question())
    seen = figures(core)
    assert seen['sessions_opened_total{model="tiny"}'] == 1
    assert seen['sessions_ended_total{end="closed",model="tiny"}'] == 1
    assert seen["sessions_active"] == 0
    _, *messages = wire.messages  # the first asks for the model card
    assert seen['message_bytes_total{direction="up"}'] == sum(map(len, messages))
    assert seen['message_bytes_total{direction="down"}'] > 0
    assert "traceparent" not in {key for key, _ in wire.metadata}, "it could link answers"


@pytest.mark.parametrize("core", [("--grace-s", "10")], indirect=True)
async def test_a_draining_server_is_seen_until_its_end(core: CoreProcess, user_folder: Path) -> None:
    seen: list[int | None] = []
    active: list[float] = []

    class Stopper(Observer):
        def committed(self, seen_block: CommittedBlock) -> bool:
            if not seen:
                seen.append(readiness(core))
                core.process.send_signal(signal.SIGTERM)
                ends = time.monotonic() + 20
                while readiness(core) == 200:
                    assert time.monotonic() < ends
                seen.append(readiness(core))
                seen.append(httpx.get(f"{core.ops}/health", trust_env=False).status_code)
                active.append(figures(core)["sessions_active"])
            return True

    async with agent_of(core.address, user_folder) as agent:
        await agent.answer(question(), Stopper())
    assert (seen, active) == ([200, 503, 200], [1.0])
    assert core.process.wait(timeout=20) == 0
    assert readiness(core) is None
    host, port = core.ops.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


async def test_a_server_whose_engine_is_killed_is_never_ready_again(core: CoreProcess, user_folder: Path) -> None:
    seen = []

    class Killer(Observer):
        def committed(self, seen_block: CommittedBlock) -> bool:
            if not seen:
                seen.append(readiness(core))
                os.kill(engine_processes(core)[0], signal.SIGKILL)
            return True

    async with agent_of(core.address, user_folder) as agent:
        with pytest.raises((EngineLost, CoreStopping)):
            await agent.answer(question(), Killer())
        assert seen == [200]
        ends = time.monotonic() + 20
        while (status := readiness(core)) is not None:
            assert status == 503
            assert time.monotonic() < ends
    assert core.process.wait(timeout=20) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_prompt_token_or_seed_is_in_the_log_of_any_process(
    core_folder: Path, user_folder: Path, tmp_path: Path, log_format: str
) -> None:
    log = tmp_path / "log"
    options = (*OPS, "--log-level", "debug", "--log-format", log_format)
    with log.open("wb") as file, running_core(f"tiny={core_folder}", *options, log=file.fileno()) as core:
        async with agent_of(core.address, user_folder) as agent:
            await agent.answer(question())
        figures(core)
        core.process.terminate()
        assert core.process.wait(timeout=20) == 0
    lines = log.read_text().splitlines()
    assert any("closed after" in line for line in lines)
    for secret in (TEXT, "Zq9sentinel", str(NOISE_SEED)):
        assert secret not in "\n".join(lines)
    assert not re.search(r"\d+(, ?\d+){4}", "\n".join(lines)), "no list of ids"
    if log_format == "json":
        objects = [json.loads(line) for line in lines]
        assert all({"time", "level", "logger", "process", "pid", "message"} <= set(line) for line in objects)
        (closed,) = [line for line in objects if line.get("end")]
        assert (closed["model"], closed["end"], closed["process"]) == ("tiny", "closed", "front end")
        assert min(closed["timesteps"], closed["seconds"], closed["bytes_up"], closed["bytes_down"]) > 0
