"""The line to the core, changed while the agent runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ssd2.demo.paths import CORE
from ssd2.errors import InvalidParameter
from tests.end_to_end.conftest import running_core
from tests.end_to_end.processes import is_running
from tests.nagle import sends_at_once
from tests.user_agent.api.conftest import agent_environment, asked, eventually, running_agent
from user_agent.config import load_config
from user_agent.serve import listening_socket

CHAT = "/v1/chat/completions"


def test_another_core_is_taken_up_and_one_that_is_no_address_changes_nothing(tmp_path: Path) -> None:
    """First λ 1 without any core, then one, then another, each with a model of the user model's vocabulary."""
    with (
        running_core(f"first={CORE}") as first,
        running_core(f"second={CORE}") as second,
        running_agent(tmp_path, max_tokens=8, insecure=True) as agent,  # which holds for no core that REST names
        agent.client() as http,
    ):
        demo = http.get("/v1/status").json()["core"]
        assert demo["is_demo"], "nothing is configured"
        assert http.patch("/v1/settings", json={"lambda_user": 0.5}).status_code == 200
        assert http.get("/v1/status").json()["core"] == demo, "the same line, and not another demo core"
        assert http.patch("/v1/settings", json={"lambda_user": 1}).status_code == 200
        assert http.get("/v1/status").json()["core"]["address"] is None
        assert http.post(CHAT, json=asked()).json()["slingshot"]["figures"]["bytes_up"] == 0
        for taken, name in ((first, "first"), (second, "second")):
            changed = http.patch("/v1/settings", json={"lambda_user": None, "core": taken.address})
            assert changed.status_code == 200
            assert http.get("/v1/status").json()["core"]["model"] is None, "nothing was sent"
            status = http.get("/v1/status?ask_core=true").json()["core"]
            assert (status["address"], status["model"], status["is_demo"]) == (taken.address, name, False)
            assert http.post(CHAT, json=asked()).status_code == 200
        for wrong, code in (("no address", "invalid_parameter"), ("core.example.org:50051", "insecure_line")):
            refused = http.patch("/v1/settings", json={"core": wrong})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
        assert http.get("/v1/settings").json()["core"]["value"] == second.address
        assert http.post(CHAT, json=asked()).status_code == 200


@pytest.mark.parametrize("when", ["while it starts", "while it serves"])
def test_the_demo_s_core_ends_with_its_agent(tmp_path: Path, when: str) -> None:
    command = [sys.executable, "-m", "user_agent", "serve", "--port", "0"]
    environment = agent_environment(tmp_path, passphrase="for tests")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as agent:
        eventually(lambda: _cores_of(agent.pid))
        if when == "while it serves":
            assert agent.stdout.readline()
        cores = _cores_of(agent.pid)
        agent.terminate()
        assert agent.wait(20) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
    assert cores
    eventually(lambda: not any(is_running(core) for core in cores))


def test_the_demos_core_is_started_again_when_it_is_killed_and_its_answer_goes_on(tmp_path: Path) -> None:
    with running_agent(tmp_path, speculation=0) as agent, agent.client() as http:
        (first,) = _cores_of(agent.process.pid)
        body = asked("Where did I put my spare key?", stream=True, slingshot={"steps": 100})
        with http.stream("POST", CHAT, json=body) as answer:
            lines = (line for line in answer.iter_lines() if line)
            trace = json.loads(next(lines).removeprefix("data: "))["slingshot"]["trace"]
            os.kill(first, signal.SIGKILL)
            *_, last, done = lines
        assert done == "data: [DONE]", last
        assert json.loads(last.removeprefix("data: "))["slingshot"]["figures"]["resumed"] == 1
        assert '"code": "own_core_ended"' in http.get(f"/v1/traces/{trace}/events").text
        (second,) = _cores_of(agent.process.pid)
        assert second != first
    eventually(lambda: not is_running(second))


def _cores_of(agent: int) -> list[int]:
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(pid) for pid in children if b"core_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_who_comes_before_the_agent_serves_waits_and_is_not_refused() -> None:
    with listening_socket(load_config(port=0)) as listening:
        socket.create_connection(listening.getsockname(), timeout=1).close()
        with pytest.raises(InvalidParameter, match="choose another port"):
            listening_socket(load_config(port=listening.getsockname()[1]))


async def test_a_small_answer_leaves_without_waiting_for_more() -> None:
    with listening_socket(load_config(port=0)) as listening:
        assert await sends_at_once(listening)
