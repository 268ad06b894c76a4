"""Citations of tokens with real weights: the demo's pair and a public model, across two processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.generator import Item, unseen_items
from ssd2.demo.paths import CORE, USER
from tests.user_agent.answering.test_reading import service_of
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core
from .faults import Fault, switchboard

DRAWN, ITEMS, RIGHT = 400, 20, 16


@pytest.fixture(scope="module")
def demo_core() -> Iterator[CoreProcess]:
    with running_core(f"demo={CORE}") as running:
        yield running


@pytest.fixture(scope="module")
def user() -> UserModel:
    return UserModel.load(USER, with_weights=True)


@pytest.fixture
async def agent(demo_core: CoreProcess, user: UserModel) -> AsyncIterator[Agent]:
    async with CoreClient(demo_core.address, Ledger.in_memory()) as client:
        yield Agent(user, client)


def asked(user: UserModel, question: str, notes: Sequence[str], seed: int = 1, *, cites: bool = True) -> Question:
    params = DecodingParams.for_model(user.config, max_tokens=24, patience=2)
    passages = [Passage(note, Path(f"{number}.md"), 1) for number, note in enumerate(notes)]
    mixed = CollaborationParams(0.3, 1.0)
    return Question(question, passages, mixed, params, Seeds.reproducible(seed), cites_tokens=cites)


def items() -> list[Item]:
    """Questions about one of four notes, every other one with a public part behind the private one."""
    private, forward = (
        [item for item in unseen_items(kind, DRAWN, seed=7) if len(item.notes) == 4 and len(item.private_slots) == 1]
        for kind in ("private", "forward")
    )
    return [item for both in zip(private, forward, strict=False) for item in both]


def cited_for(answer: Answer, words: str) -> set[object]:
    """Citations of the tokens of some words of the answer."""
    start, at, found = answer.text.find(words), 0, set[object]()
    text = "".join(token.text for token in answer.tokens)
    start += len(text) - len(text.lstrip())
    for token in answer.tokens:
        if at + len(token.text) > start and at < start + len(words):
            found.add(token.citation)
        at += len(token.text)
    return found


async def test_private_tokens_come_from_the_right_one_of_four_notes(agent: Agent, user: UserModel) -> None:
    """Counted over answers that have the value; of how many do is measured elsewhere."""
    answered, right, public = 0, 0, set[object]()
    for number, item in enumerate(items()):
        answer = await agent.answer(asked(user, item.question, item.notes, number))
        (value,) = item.private_slots
        if value in answer.text:
            answered += 1
            right += cited_for(answer, value) == {next(n for n, note in enumerate(item.notes) if value in note)}
            found = [slot for slot in item.public_slots if slot in answer.text]
            public |= set[object]().union(*(cited_for(answer, slot) for slot in found))
        if answered == ITEMS:
            break
    assert answered == ITEMS, "there are too few to count"
    assert right >= RIGHT, f"{right} of {ITEMS}"
    assert public <= {None}, "what the town knows comes from no note"


async def test_two_notes_that_name_two_places_are_shown_as_such(agent: Agent, user: UserModel) -> None:
    notes = ("My dentist appointment is at Fern Gallery.", "My dentist appointment is at Hazel Hammer.")
    answer = await agent.answer(asked(user, "Where is my dentist appointment?", notes))
    (conflict,) = answer.conflicts
    said = [(one.citation, one.would_say) for one in conflict.passages]
    assert said == [(0, "Fern Gallery"), (1, "Hazel Hammer")]
    assert conflict.text in answer.text
    other = await agent.answer(
        asked(user, "Where is my dentist appointment?", (notes[0], "The piano lesson takes place at Rose Tower."))
    )
    assert other.conflicts == []


async def test_a_broken_line_costs_no_citation(demo_core: CoreProcess, user: UserModel) -> None:
    question = asked(
        user,
        "When does the place of my dentist appointment open?",
        ("My dentist appointment is at Fern Gallery.", "My dentist appointment is at Hazel Hammer."),
    )
    answers = []
    async with switchboard(demo_core.address) as board:
        for fault in (None, Fault(lambda: board.cut(demo_core.address), 1, 0)):
            async with CoreClient(board.address, Ledger.in_memory()) as client:
                answers.append(await Agent(user, client).answer(question, fault))
    unbroken, broken = answers
    assert (unbroken.resumed, broken.resumed) == (0, 1)
    assert broken.tokens == unbroken.tokens
    assert broken.conflicts == unbroken.conflicts != []


async def test_a_public_model_cites_everyday_notes_and_names_what_they_disagree_about(smollm2_folder: Path) -> None:
    notes = {
        "letter.md": "From March the rent is 950 euros.",
        "lease.md": "Rent: 900 euros, due on the first of the month.",
    }
    found = [Passage(text, Path(name), 1) for name, text in notes.items()]
    service = service_of(UserModel.load(smollm2_folder, with_weights=True), found, cite="tokens", max_tokens=12)
    answered = await service.start(service.request("How much is the rent?"), "trace")
    sayings = [{found[one.citation].source.name: one.would_say for one in c.passages} for c in answered.conflicts]
    assert {"letter.md": "950 euros", "lease.md": "900 euros"} in sayings
    assert {token.citation for token in answered.tokens if token.text.strip() in ("euros", "9")} <= {0, 1}
