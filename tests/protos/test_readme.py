"""The agent that stands in the page on the wire, with message types of its own and nothing of ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from ssd2.algorithm.noised_simplex import noised_simplex
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.paths import CORE, USER
from ssd2.errors import SENT_BY_CORES, SlingshotError
from tests.end_to_end.conftest import ROOT, running_core
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

README = (ROOT / "protos" / "README.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
QUESTION = "When does Fern Tower open?"
SEED = 12345


def test_the_agent_of_the_page_gets_the_answer_that_ours_gets(tmp_path: Path) -> None:
    program, _ = PROGRAMS
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
    params = DecodingParams(block_size=16, max_tokens=48, steps=25, projection="greedy", self_conditioning="projection")
    seeds = Seeds(noise=SEED, sampling=0)
    async with CoreClient(address, Ledger.in_memory()) as client:
        agent = Agent(UserModel.load(USER, with_weights=False), client)
        answer = await agent.answer(Question(QUESTION, (), CollaborationParams(0.0), params, seeds))
    assert "opens" in answer.text
    return answer.text


@pytest.mark.parametrize("token_ids", [None, [5, 0, 100, 101, 7]])
@pytest.mark.parametrize("seed", [SEED, 2**63 - 1])
def test_the_noise_of_the_page_is_ours(token_ids: list[int] | None, seed: int) -> None:
    page: dict[str, Any] = {}
    exec(PROGRAMS[1], page)  # noqa: S102  # what stands in the page
    length, vocab_size, block, t, k = 5, 102, 3, 640, 4.0
    x0_hat = None if token_ids is None else 2 * k * one_hot(torch.tensor([token_ids]), vocab_size) - k
    shape = {"length": length, "simplex_value": k, "vocab_size": vocab_size}
    ours = noised_simplex(x0_hat, [seed], block=block, timestep=t, **shape)
    found = torch.tensor(page["x_t"](seed, block, t, k, token_ids, length, vocab_size))
    torch.testing.assert_close(found, ours[0].double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(SENT_BY_CORES, key=lambda kind: kind.code))
def test_the_page_has_every_code_with_its_status(kind: type[SlingshotError]) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith("|") and f"`{kind.code}`" in line)
    assert kind.grpc_status in row
