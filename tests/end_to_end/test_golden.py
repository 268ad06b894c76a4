"""Answers written down once, over gRPC: a change of structure changes none of their tokens.

To write the file anew, where an algorithm was changed on purpose: SLINGSHOT_WRITE_GOLDEN=1 pytest FILE.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm

from ssd2.algorithm.params import PROJECTIONS, CollaborationParams, DecodingParams, Seeds
from ssd2.demo import paths
from ssd2.models.checkpoint import save_checkpoint
from ssd2.models.convert import export_opt
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core

GOLDEN = Path(__file__).with_name("golden.json")
PASSAGE = Passage("My dentist appointment is at Amber Arch.", Path("a.md"), 1)
FAMILIES = ("demo", "ssd-2", "experts", "ssd-lm", "autoregressive")
WEIGHTS = ((0.0, 0.0, 1), (0.4, 1.0, 1), (0.4, 1.0, 2), (0.4, 0.0, 3), (1.0, 1.0, 1))
"""λ, α and the number of the seeds."""


def _save(family: str, folder: Path, seed: int) -> None:
    tokenizer_json = DEMO_TOKENIZER.read_text()
    if family == "autoregressive":
        export_opt(demo_shaped_model(seed), folder, tokenizer_json)
    elif family == "ssd-lm":
        save_ssd_lm(folder, seed)
    elif family == "experts":
        save_checkpoint(folder, experts_of(*(demo_shaped_model(seed + i) for i in range(3))), tokenizer_json)
    else:
        save_checkpoint(folder, demo_shaped_model(seed), tokenizer_json)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Of the core and the user model of each family; the demo pair is the one that is shipped."""
    root = tmp_path_factory.mktemp("golden")
    pairs = {family: (root / f"core-{family}", root / f"user-{family}") for family in FAMILIES[1:]}
    for number, (family, (core, user)) in enumerate(pairs.items()):
        _save(family, core, 20 * number + 100)
        _save(family, user, 20 * number + 110)
    return {"demo": (paths.CORE, paths.USER), **pairs}


@pytest.fixture(scope="module")
def core(folders: dict[str, tuple[Path, Path]]) -> Iterator[CoreProcess]:
    first, *others = (f"{family}={core}" for family, (core, _) in folders.items())
    with running_core(first, *(part for other in others for part in ("--model", other))) as running:
        yield running


def _questions(family: str, user: UserModel) -> dict[str, Question]:
    """Of every projection and self-conditioning, by what tells them apart."""
    questions = {}
    for projection, self_conditioning, weights in product(PROJECTIONS, ("own", "projection"), WEIGHTS):
        lambda_user, alpha, seed = weights
        params = DecodingParams.for_model(
            user.config,
            block_size=min(user.config.block_size, 8),
            steps=min(user.config.default_steps, 6),
            max_tokens=16,
            projection=projection,
            self_conditioning=self_conditioning,
            top_p=0.9,
        )
        collaboration = CollaborationParams(lambda_user, alpha)
        name = f"{projection}, {self_conditioning}, λ {lambda_user}, α {alpha}, seeds {seed}"
        asked = f"Where is my dentist appointment, and where is appointment {seed}?"
        questions[name] = Question(asked, [PASSAGE], collaboration, params, Seeds.reproducible(seed), model=family)
    return questions


def _written(golden: dict[str, dict[str, list[int]]]) -> str:
    """JSON with a line for each answer."""
    families = []
    for family, answers in golden.items():
        lines = ",\n".join(f"  {json.dumps(name, ensure_ascii=False)}: {tokens}" for name, tokens in answers.items())
        families.append(f" {json.dumps(family)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(families) + "\n}\n"


@pytest.mark.parametrize("family", FAMILIES)
async def test_answers_have_the_tokens_that_were_written_down(
    core: CoreProcess, folders: dict[str, tuple[Path, Path]], family: str
) -> None:
    user = UserModel.load(folders[family][1], with_weights=True)
    gate = asyncio.Semaphore(8)

    async def ask(question: Question) -> list[int]:
        async with gate, CoreClient(core.address, Ledger.in_memory()) as client:
            return [token.token_id for token in (await Agent(user, client).answer(question)).tokens]

    questions = _questions(family, user)
    tokens = await asyncio.gather(*(ask(question) for question in questions.values()))
    answers = dict(zip(questions, tokens, strict=True))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("SLINGSHOT_WRITE_GOLDEN"):
        golden[family] = answers
        GOLDEN.write_text(_written(golden))
    assert answers == golden[family]
