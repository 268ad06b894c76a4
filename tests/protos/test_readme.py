"""The agent that stands in the page on the wire, with message types of its own and nothing of ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core_server.error_catalog import CATALOGUE
from ssd2.demo.paths import CORE, USER
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from tests.end_to_end.conftest import ROOT, running_core
from user_agent.agent import Agent, Question
from user_agent.core_client import CoreClient
from user_agent.user_model import UserModel

README = (ROOT / "protos" / "README.md").read_text()
QUESTION = "When does Fern Gallery open?"
SEED = 12345


def test_the_agent_of_the_page_gets_the_answer_that_ours_gets(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "agent.py").write_text(program.replace("secrets.randbits(63)", str(SEED)))
    generate = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos" / "ssd2" / "wire")]
    subprocess.run(
        [*generate, "--python_out=.", "--grpc_python_out=.", "collaboration.proto"], cwd=tmp_path, check=True
    )
    with running_core(CORE) as core:
        command = [sys.executable, "agent.py", core.address, str(CORE / "tokenizer.json"), QUESTION]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        assert done.stdout.strip() == asyncio.run(_ours(core.address))


async def _ours(address: str) -> str:
    params = DecodingParams(block_size=8, max_tokens=48, steps=25, projection="greedy")
    seeds = Seeds(noise=SEED, sampling=0)
    async with CoreClient(address) as client:
        agent = Agent(UserModel.load(USER, with_weights=False), client)
        answer = await agent.answer(Question(QUESTION, (), CollaborationParams(0.0), params, seeds))
    assert "opens" in answer.text
    return answer.text


@pytest.mark.parametrize("kind", [kind for kind, entry in CATALOGUE.items() if entry.is_public])
def test_the_page_has_every_code_with_its_status(kind: type[Exception]) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith("|") and f"`{kind.code}`" in line)
    assert CATALOGUE[kind].status.name in row
