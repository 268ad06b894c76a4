"""Whatever goes wrong: one clear line that says what to do, exit code other than 0, no traceback, no hang."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from conftest import DEMO_TOKENIZER, demo_shaped_model

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreTimeout, ProtocolViolation
from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.checksums import SHA256SUMS
from ssd2.models.convert import export_opt
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.errors import CoreLost
from user_agent.line.client import PATIENCE_S, CoreClient
from user_agent.store.ledger import Ledger

from .conftest import ENVIRONMENT, CoreProcess, run_agent, running_core
from .processes import engine_processes

LONGEST_S = 10
BUSY_S = 8
"""What a busy machine may take on top of the longest wait, for one to start Python and torch."""


def _fails(result: subprocess.CompletedProcess[str], *says: str) -> None:
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    message = " ".join(result.stderr.replace("│", " ").split())
    for part in says:
        assert part in message, result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--lambda-user", "1.5"), ("--lambda-user is '1.5'", "from 0 to 1")),
        (("--lambda-user", "nan"), ("--lambda-user is 'nan'",)),
        (("--alpha", "-1"), ("--alpha is '-1'", "from 0 to 100")),
        (("--steps", "0"), ("--steps is '0'", "from 1 to 1,000")),
        (("--steps", "601"), ("steps is 601", "1 to 600")),
        (("--schedule", "odd"), ("'odd'", "even or changes")),
        (("--schedule", "changes", "--steps", "500"), ("steps is 500", "1 to 400")),
        (("--patience", "-1"), ("--patience is '-1'",)),
        (("--entropy-bound", "0"), ("--entropy-bound is '0'", "above 0")),
        (("--entropy-bound", "1", "--patience", "0"), ("only with patience",)),
        (("--core-every", "x"), ("--core-every is 'x'", "a whole number")),
        (("--top-p", "0"), ("--top-p is '0'",)),
        (("--temperature", "3"), ("--temperature is '3'", "from 0 to 2")),
        (("--logits", "float8"), ("--logits: ", "'float8'", "float16, uint8 or top-k:K")),
        (("--logits", "top-k:1025"), ("it offers float16,uint8,top-k:1024", "--logits")),
        (("--projection", "greedy"), ("'greedy'", "sampling or multi-hot")),
        (("--early-stop", "1"), ("--early-stop is '1'", "below 1")),
        (("--block-size", "0"), ("--block-size is '0'",)),
        (("--max-tokens", "0"), ("--max-tokens is '0'",)),
        (("--block-size", "200"), ("an answer of 200 tokens leaves no room for a question", "(--block-size)")),
        (("--seed", "-1"), ("--seed is '-1'",)),
        (("--documents", "notes"), ("--documents: 'notes' is not a choice of documents; use all, none, or ids",)),
        (("--documents", "3", "--docs", "."), ("exclude each other",)),
        (("--stop-text", "x") * 5, ("--stop-text: ", "at most 4")),
        (("--self-conditioning", "mixed"), ("reveal", "own or projection")),
        (("--docs", "/nowhere/notes"), ("/nowhere/notes", "--docs")),
        (("--user-model", "/nowhere/model"), ("/nowhere/model",)),
    ],
)
def test_a_bad_argument_is_named(
    core: CoreProcess, user_folder: Path, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    result = run_agent("ask", "Hello?", "--core", core.address, "--user-model", str(user_folder), *arguments)
    _fails(result, *says)


def test_an_unknown_model(core: CoreProcess, user_folder: Path) -> None:
    result = run_agent("ask", "Hello?", "--core", core.address, "--user-model", str(user_folder), "--model", "gpt-9")
    _fails(result, "there are: tiny (ssd-2)")


def test_another_tokenizer(core: CoreProcess, user_folder: Path, tmp_path: Path) -> None:
    for file in user_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / SHA256SUMS).unlink()  # it would say first that the file was changed
    result = run_agent("ask", "Hello?", "--core", core.address, "--user-model", str(tmp_path))
    _fails(result, "has another vocabulary than the user model", "--user-model")


def test_a_user_model_of_another_family(core: CoreProcess, tmp_path: Path) -> None:
    export_opt(demo_shaped_model(1), tmp_path, DEMO_TOKENIZER.read_text())
    result = run_agent("ask", "Hello?", "--core", core.address, "--user-model", str(tmp_path))
    _fails(result, "there are: tiny (ssd-2)")


def test_an_overlong_prompt(core: CoreProcess, user_folder: Path) -> None:
    result = run_agent("ask", "why " * 500, "--core", core.address, "--user-model", str(user_folder))
    _fails(result, "tokens", "shorten it")


def test_a_prompt_that_is_too_long_for_the_core_alone(user_folder: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, demo_shaped_model(1, answer_position=8, max_positions=80), DEMO_TOKENIZER.read_text())
    with running_core(tmp_path) as small:
        result = run_agent("ask", "why " * 20, "--core", small.address, "--user-model", str(user_folder))
    _fails(result, "the models take at most 8", "shorten it")


def test_a_core_that_is_not_there(user_folder: Path) -> None:
    started = time.monotonic()
    result = run_agent("ask", "Hello?", "--core", "127.0.0.1:1", "--user-model", str(user_folder))
    _fails(result, "no core answers at 127.0.0.1:1", "check the address", "--core HOST:PORT")
    assert time.monotonic() - started < LONGEST_S + BUSY_S


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_something_that_is_no_core(user_folder: Path, mute_port: int) -> None:
    started = time.monotonic()
    result = run_agent("ask", "Hello?", "--core", f"127.0.0.1:{mute_port}", "--user-model", str(user_folder))
    _fails(result, "no core answers")
    assert time.monotonic() - started < LONGEST_S + BUSY_S


async def test_a_reply_that_does_not_parse_is_a_protocol_violation() -> None:
    class Junk(grpc.GenericRpcHandler):
        def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(self.answer)

        async def answer(self, *_: object) -> bytes:
            return b"\xff\xff"

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Junk(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with CoreClient(address, Ledger.in_memory()) as client:
        with pytest.raises(ProtocolViolation, match="it sent bytes that do not parse"):
            await client.model_card("", "ssd-2")
    await server.stop(0)


@pytest.mark.parametrize("address", ["nonsense", "host:port", "", "[::1"])
def test_an_address_that_is_none(user_folder: Path, address: str) -> None:
    _fails(run_agent("ask", "Hello?", "--core", address, "--user-model", str(user_folder)), "--core")


async def _interrupted(core: CoreProcess, user_folder: Path, number: int, timeout_s: float) -> None:
    """Send a signal to the core after the first block of a long answer; the agent, left alone, gives up soon after."""
    user = UserModel.load(user_folder, with_weights=True)
    params = DecodingParams(block_size=8, max_tokens=48, steps=150, stop=0.4)
    question = Question("Hello?", [], CollaborationParams(0.3, 0), params, Seeds.reproducible(3))
    hit: list[float] = []

    class Fault(Observer):
        def committed(self, seen: CommittedBlock) -> bool:
            if not hit:
                os.kill(core.process.pid, number)
                hit.append(time.monotonic())
            return True

    try:
        async with CoreClient(core.address, Ledger.in_memory(), answer_timeout_s=timeout_s, patience_s=0) as client:
            await Agent(user, client).answer(question, Fault())
    finally:
        assert hit, "the fault never happened"
        assert time.monotonic() - hit[0] < timeout_s + BUSY_S


async def test_a_core_that_dies_in_the_middle(core_folder: Path, user_folder: Path) -> None:
    with running_core(core_folder) as core:
        with pytest.raises(CoreLost, match="ask again"):
            await asyncio.wait_for(_interrupted(core, user_folder, signal.SIGKILL, LONGEST_S), 60)
        assert core.process.wait(5) == -signal.SIGKILL


async def test_a_core_that_freezes_in_the_middle(core_folder: Path, user_folder: Path) -> None:
    with running_core(core_folder) as core:
        try:
            with pytest.raises((CoreTimeout, CoreLost), match="ask again"):
                await asyncio.wait_for(_interrupted(core, user_folder, signal.SIGSTOP, 2), 60)
        finally:
            os.kill(core.process.pid, signal.SIGCONT)


def test_a_core_that_dies_under_the_command_line(core_folder: Path, user_folder: Path) -> None:
    with running_core(core_folder) as core:
        command = ("ask", "Hello?", "--core", core.address, "--user-model", str(user_folder), "--steps", "600")
        agent = subprocess.Popen(
            [sys.executable, "-m", "user_agent", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        _wait_for_cpu(*engine_processes(core))
        core.process.kill()
        killed = time.monotonic()
        out, err = agent.communicate(timeout=60)
    assert time.monotonic() - killed < PATIENCE_S + LONGEST_S
    _fails(subprocess.CompletedProcess(command, agent.returncode, out, err), "ask again")


def _wait_for_cpu(pid: int) -> None:
    """Until a process computes: its processor time grows by half a second."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    first, deadline = ticks(), time.monotonic() + 60
    while ticks() - first < os.sysconf("SC_CLK_TCK") // 2:
        assert time.monotonic() < deadline, "the core never began to compute"
        time.sleep(0.05)
