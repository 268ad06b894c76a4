"""What a decode with next tokens makes at the vocabulary of real models."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from core_server.config import ServerConfig
from core_server.engine import Engine
from core_server.engines import Engines
from core_server.loaded_model import LoadedModel
from ssd2.checkpoint import load_checkpoint
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from tests.allocations import Allocations
from tests.conftest import DEMO_TOKENIZER
from tests.core_server.conftest import engine_in_this_process, serving
from user_agent.agent import Agent, Question
from user_agent.core_client import CoreClient
from user_agent.documents.passage import Passage
from user_agent.user_model import UserModel

VOCAB = 151_936
TOKENS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, VOCAB)
    return folder


def save_llama(folder: Path, vocab_size: int) -> None:
    torch.manual_seed(5)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **shape, **ids)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(DEMO_TOKENIZER.read_text())


@pytest.mark.parametrize("projection", ["greedy", "sampling"])
async def test_a(folder: Path, projection: str, monkeypatch) -> None:
    made_by = frozenset([nn.Module._call_impl.__code__])
    core_made, device_made = Allocations(VOCAB, made_by), Allocations(VOCAB, made_by)
    device2 = Allocations(VOCAB, made_by)
    run = Engine.run

    def counted(engine: Engine) -> None:
        with core_made:
            run(engine)

    monkeypatch.setattr(Engine, "run", counted)
    core = LoadedModel("core", load_checkpoint(folder))
    user = UserModel.load(folder, with_weights=True)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, initializer=device2.__enter__))
    params = DecodingParams.for_model(user.config, max_tokens=TOKENS, projection=projection)
    asked = Question("Where is it?", (Passage("The key.", Path("a.md"), 1),), CollaborationParams(0.3, 1.0), params, Seeds.reproducible(1))
    async with (
        engine_in_this_process(core, slots=1) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
        CoreClient(f"127.0.0.1:{agent.port}") as client,
    ):
        with device_made:
            answer = await Agent(user, client).answer(asked)
    assert len(answer.tokens) == TOKENS
    for name, one in (("core", core_made), ("device", device_made), ("thread", device2)):
        print(name)
        for where, count in one.found.items():
            print("  ", count, where)
