"""A family of models is one file and one line: one that a test registers does all that those which ship do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import PROJECTIONS, CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CheckpointInvalid
from ssd2.logits.format import FLOAT16
from ssd2.models import registry
from ssd2.models.checkpoint import load_checkpoint, save_checkpoint
from ssd2.models.configs import PlainConfig
from ssd2.models.predict import begin, begin_sampler
from tests.bigram import BigramLane, BigramLM
from tests.conftest import DEMO_TOKENIZER
from tests.core_server.conftest import engine_in_this_process, serving
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .faults import Fault, Switchboard, switchboard

SESSIONS = 4
TOKENS = 12


@dataclass
class Pair:
    """A core and a user model of the family."""

    core: LoadedModel
    user: UserModel


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(registry, "MODULES", ["tests.bigram", *registry.MODULES])  # the line
    shape = {"vocab_size": 1782, "max_positions": 160, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    for seed, name in enumerate(("core", "user")):
        torch.manual_seed(seed)
        model = BigramLM(PlainConfig(family="bigram", **shape))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        save_checkpoint(tmp_path / name, model, DEMO_TOKENIZER.read_text())
    return Pair(
        LoadedModel("core", load_checkpoint(tmp_path / "core")), UserModel.load(tmp_path / "user", with_weights=True)
    )


@asynccontextmanager
async def answering(pair: Pair) -> AsyncIterator[Switchboard]:
    """Serve the core in this process; its line can be cut."""
    config = ServerConfig({}, grace_s=0.0, max_sessions=SESSIONS, speculation=4)
    async with (
        engine_in_this_process(pair.core, slots=SESSIONS) as engine,
        serving(Engines([engine]), config) as (_, agent),
        switchboard(f"127.0.0.1:{agent.port}") as board,
    ):
        yield board


def question(pair: Pair, number: int, lambda_user: float = 0.3, speculation: int = 0) -> Question:
    params = DecodingParams.for_model(
        pair.user.config, max_tokens=TOKENS, projection=PROJECTIONS[number % len(PROJECTIONS)], top_p=0.5
    )
    passage = Passage("The key is in the blue drawer.", Path("notes.md"), 1)
    asked = f"Where is it{', and where' * number}?"
    collaboration, seeds = CollaborationParams(lambda_user, alpha=1.0), Seeds.reproducible(number)
    return Question(asked, (passage,), collaboration, params, seeds, logits_format=FLOAT16, speculation=speculation)


def in_one_process(pair: Pair, asked: Question) -> list[int]:
    core = begin(pair.core.checkpoint.model, [pair.user.core_prompt(asked.instruction)], "own")
    terms = pair.user.terms(asked.instruction, asked.passages, asked.collaboration, "own")
    sampler = begin_sampler(pair.user.config, asked.params, [asked.seeds])
    return decode_locally(core, terms, asked.collaboration, sampler)[0]


async def answered(pair: Pair, address: str, asked: Question, fault: Fault | None = None) -> Answer:
    async with asyncio.timeout(30), CoreClient(address, Ledger.in_memory()) as client:
        return await Agent(pair.user, client).answer(asked, fault)


def ids(answer: Answer) -> list[int]:
    return [token.token_id for token in answer.tokens]


@pytest.mark.parametrize("speculation", [0, 4])
async def test_it_answers_over_grpc_as_in_one_process_many_rows_a_batch(pair: Pair, speculation: int) -> None:
    asked = [question(pair, number, speculation=speculation) for number in range(SESSIONS)]
    BigramLane.batches.clear()
    async with answering(pair) as board:
        answers = await asyncio.gather(*(answered(pair, board.address, one) for one in asked))
    assert [ids(answer) for answer in answers] == [in_one_process(pair, replace(one, speculation=0)) for one in asked]
    assert max(BigramLane.batches) > 1
    assert all(len(answer.tokens) == TOKENS for answer in answers)


async def test_its_core_guesses_the_tokens_that_it_would_write_itself(pair: Pair) -> None:
    """At λ = 0 the greedy token is always the one that was computed on."""
    async with answering(pair) as board:
        answer = await answered(pair, board.address, question(pair, 0, lambda_user=0.0, speculation=4))
    assert answer.guessed_timesteps > 0


@pytest.mark.parametrize("speculation", [0, 4])
async def test_a_line_that_is_cut_costs_it_no_token(pair: Pair, speculation: int) -> None:
    asked = question(pair, 1, speculation=speculation)
    async with answering(pair) as board:
        fault = Fault(lambda: board.cut(board.leads_to), 5, None)
        answer = await answered(pair, board.address, asked, fault)
    assert (fault.happened, answer.resumed) == (1, 1)
    assert ids(answer) == in_one_process(pair, replace(asked, speculation=0))


def test_without_its_line_its_checkpoint_is_none_that_is_known(pair: Pair, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "MODULES", registry.MODULES[1:])
        with pytest.raises(CheckpointInvalid, match="models of the kind in"):
            load_checkpoint(tmp_path / "core")
