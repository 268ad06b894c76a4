"""Questions whose two values stand in one block, over the real protocol: the tokens of a decode in one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.demo.paths import RELATION
from ssd2.demo.relation.text import evaluation_items, gives_both
from ssd2.evaluation.pair import Pair, answer_items
from ssd2.lab.claim import FOLDERS, REFERENCE, Setting
from ssd2.logits.format import FLOAT16
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import running_core

ITEMS = 6
CORE, USER = (RELATION / folder for folder in FOLDERS["algorithm 1"])
COLLABORATION = CollaborationParams(lambda_user=0.3, alpha=1.0)


async def test_a_fact_before_its_place_crosses_the_wire_as_in_one_process() -> None:
    """Only projected tokens carry the place to the core, which has to choose the time by it."""
    pair, items = Pair.load(CORE, USER), evaluation_items("reverse", ITEMS)
    params = Setting("algorithm 1", "reverse", *REFERENCE).params(pair)
    user = UserModel.load(USER, with_weights=True)

    async def ask(row: int, address: str) -> str:
        question = Question(
            items[row].question,
            tuple(Passage(note, Path("note.md"), 1) for note in items[row].notes),
            COLLABORATION,
            params,
            Seeds.reproducible(row),
            logits_format=FLOAT16,
        )
        async with CoreClient(address, Ledger.in_memory()) as client:
            answer = await Agent(user, client).answer(question)
        return user.tokenizer.decode([token.token_id for token in answer.tokens])

    with running_core(CORE) as core:
        remote = await asyncio.gather(*(ask(row, core.address) for row in range(ITEMS)))
    assert remote == answer_items(pair, items, COLLABORATION, params, 0, ITEMS)
    assert sum(map(gives_both, items, remote)) > ITEMS / 2, "else the equality shows nothing of the relation"
