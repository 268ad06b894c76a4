"""Tensors that a decode of the family autoregressive makes, on both sides, at the vocabulary of a real model.

With L = 1, a tensor of the size of L x V has V entries for each row. Its logits are these, and no others:

    what the networks give: the core's row, and the user model's two, with and without the documents
    the core's row packed for the wire, and as received
    the mix, with its weighted terms
    while entries are ranked, the keys that they are ranked by

Beside them the device may make, for each token, two copies of the mix for the proof, and where it draws the
probabilities of the mix and of the core's row. Nothing of the size is made that no logits go into: no noise, no
simplex, no mask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.engine.process import Engine
from core_server.frontend.engines import Engines
from ssd2.algorithm.ensemble import weighted_sum
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.ranking import ranked
from ssd2.models.checkpoint import load_checkpoint
from ssd2.wire.tensors import pack_logits, unpack_logits
from tests.allocations import Allocations
from tests.core_server.conftest import engine_in_this_process, serving
from tests.families import save_llama
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

VOCAB = 151_936
TOKENS = 4
PLACES = (nn.Module._call_impl, pack_logits, unpack_logits, weighted_sum, ranked)
LOGITS = frozenset(function.__code__ for function in PLACES)
COPIES = {"greedy": 2, "sampling": 5}
"""Copies of logits that the device may make for a token."""


@dataclass(frozen=True)
class Made:
    """Tensors that each side made, its logits left out."""

    core: Allocations
    device: Allocations
    user_model: Allocations


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, VOCAB)
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Callable[[str], Made]:
    """Decode once per projection."""
    core, user = LoadedModel("core", load_checkpoint(folder)), UserModel.load(folder, with_weights=True)
    known: dict[str, Made] = {}

    def of(projection: str) -> Made:
        if projection not in known:
            known[projection] = asyncio.run(_decoded(core, user, projection, LOGITS))
        return known[projection]

    return of


async def _decoded(core: LoadedModel, user: UserModel, projection: str, logits: frozenset[object]) -> Made:
    """Decode over gRPC, both sides in this process: the engine, the device's loop and its model are a thread each."""
    made = Made(*(Allocations(VOCAB, logits) for _ in range(3)))
    run = Engine.run

    def counted(engine: Engine) -> None:
        with made.core:
            run(engine)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, initializer=made.user_model.__enter__))
    params = DecodingParams.for_model(user.config, max_tokens=TOKENS, projection=projection)
    passages, collaboration = (Passage("The key.", Path("a.md"), 1),), CollaborationParams(0.3, alpha=1.0)
    question = Question("Where is it?", passages, collaboration, params, Seeds.reproducible(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "run", counted)
        async with (
            engine_in_this_process(core, slots=1) as engine,
            serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
            CoreClient(f"127.0.0.1:{agent.port}", Ledger.in_memory()) as client,
        ):
            with made.device:
                answer = await Agent(user, client).answer(question)
    assert len(answer.tokens) == TOKENS
    return made


async def test_what_is_made_on_either_side_is_seen(folder: Path) -> None:
    """Otherwise the tests below could not fail."""
    core, user = LoadedModel("core", load_checkpoint(folder)), UserModel.load(folder, with_weights=True)
    made = await _decoded(core, user, "greedy", frozenset())
    for side, places in (
        (made.core, ("pack",)),
        (made.device, ("weighted_sum", "unpack")),
        (made.user_model, ("forward",)),
    ):
        assert all(any(place in name for name in side.derived) for place in places), side.derived
        assert sum(side.derived.values()) >= TOKENS


def test_only_new_tensors_of_the_size_are_counted() -> None:
    small, large = torch.zeros(9), torch.zeros(10)
    with Allocations(10) as made:
        large.view(2, 5)[0].add_(1)
        large.add_(small[0]).clamp_(max=2.0)
        large.argmax(), small * 2, large[:9].clone()
        assert not made.derived
        assert not made.from_nothing
        large * 2, torch.cat([small, small]), large > 0
        torch.zeros(10), torch.zeros_like(large), small.new_full((2, 5), 1.0)
    assert sum(made.derived.values()) == 2
    assert sum(made.from_nothing.values()) == 4


@pytest.mark.parametrize("projection", COPIES)
def test_a_core_makes_nothing_of_the_vocabulary_s_size_but_its_logits(
    made: Callable[[str], Made], projection: str
) -> None:
    core = made(projection).core
    assert not core.from_nothing, core.from_nothing
    assert not core.derived, core.derived


@pytest.mark.parametrize("projection", COPIES)
def test_a_device_makes_nothing_of_the_vocabulary_s_size_but_its_logits(
    made: Callable[[str], Made], projection: str
) -> None:
    device = made(projection).device
    assert not device.from_nothing, device.from_nothing
    assert sum(device.derived.values()) <= COPIES[projection] * TOKENS, device.derived


@pytest.mark.parametrize("projection", COPIES)
def test_a_user_model_makes_nothing_of_the_vocabulary_s_size_but_its_logits(
    made: Callable[[str], Made], projection: str
) -> None:
    user_model = made(projection).user_model
    assert not user_model.from_nothing, user_model.from_nothing
    assert not user_model.derived, user_model.derived
