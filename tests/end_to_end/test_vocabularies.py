"""A core and a user model whose vocabularies differ by rows that no token has: rows are cut to the smaller V."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import Predictor, UserTerms, decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import LogitsFormat
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.predict import begin, begin_sampler
from tests.core_server.conftest import engine_in_this_process, serving
from tests.families import save_llama
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

KNOWN, PADDED = 1782, 1846
"""V of the demo tokenizer, and 64 more, as Gemma's larger models have."""
PASSAGES = (Passage("The key is in the shed.", Path("a.md"), 1),)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the folder of a model of a size, to which the ids behind those that are known seem the likeliest."""
    folders = {}
    for vocab_size in (KNOWN, PADDED):
        folders[vocab_size] = folder = tmp_path_factory.mktemp("models") / str(vocab_size)
        network = save_llama(folder, vocab_size)
        with torch.no_grad():
            network.lm_head.weight[KNOWN:] = 3 * network.lm_head.weight[: vocab_size - KNOWN]
        network.save_pretrained(folder)
    return folders.__getitem__


class Cut:
    """A predictor of the known ids only."""

    def __init__(self, whole: Predictor) -> None:
        self._whole = whole

    def logits(self, view: BlockView) -> Tensor:
        return self._whole.logits(view)[..., :KNOWN]


def expected(core: LoadedModel, user: UserModel, question: Question, logits_format: LogitsFormat) -> list[int]:
    """Decode in one process with models that have the known ids only."""
    prompt, terms = user.core_prompt(question.instruction), None
    if question.collaboration.uses_user:
        whole = user.terms(question.instruction, question.passages, question.collaboration, "own")
        terms = UserTerms(Cut(whole._predictor), whole._copies)
    sampler = begin_sampler(user.config, question.params, [question.seeds])
    of_core = Cut(begin(core.checkpoint.model, [prompt], "own"))
    return decode_locally(of_core, terms, question.collaboration, sampler, logits_format=logits_format)[0]


@pytest.mark.parametrize("logits_format", ["float16", "top-k:16"])
@pytest.mark.parametrize(("of_core", "of_user"), [(PADDED, KNOWN), (KNOWN, PADDED)])
async def test_an_answer_is_that_of_models_of_the_smaller_vocabulary(
    folder_of: Callable[[int], Path], of_core: int, of_user: int, logits_format: str
) -> None:
    core = LoadedModel("core", load_checkpoint(folder_of(of_core)))
    user, wanted = UserModel.load(folder_of(of_user), with_weights=True), LogitsFormat.parse(logits_format)
    params = DecodingParams.for_model(user.config, max_tokens=12, projection="greedy")
    async with (
        engine_in_this_process(core, slots=1) as engine,
        serving(Engines([engine]), ServerConfig({}, grace_s=0.0)) as (_, agent),
        CoreClient(f"127.0.0.1:{agent.port}", Ledger.in_memory()) as client,
    ):
        for collaboration in (CollaborationParams(0.0), CollaborationParams(0.4, 1.0)):
            question = Question(
                "Where is it?", PASSAGES, collaboration, params, Seeds.reproducible(1), "", wanted, speculation=2
            )
            answer = await Agent(user, client).answer(question)
            assert [token.token_id for token in answer.tokens] == expected(core, user, question, wanted)
            assert len(answer.tokens) == 12
