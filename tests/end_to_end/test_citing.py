"""Citations of tokens with real weights: the demo's pair and a public model, across two processes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.paths import CORE, USER
from ssd2.demo.world import natural_values
from tests.user_agent.answering.test_reading import service_of
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .conftest import CoreProcess, running_core
from .faults import Fault, switchboard

ITEMS, READ, RIGHT_SHARE = 20, 10, 0.9
TOPICS = ("piano lesson", "swim course", "choir evening", "book club", "dance class", "yoga class", "art workshop")
"""Topics of the training text, so that the test is about citations."""
FORMS = ("My {} is at {}.", "The {} is at {}.", "The {} takes place at {}.", "I booked the {} at {}.")
TWO_PLACES = ("My piano lesson is at Fern Gallery.", "My piano lesson is at Hazel Hammer.")


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


def items() -> Iterator[tuple[str, list[str], int, str]]:
    """Questions about one of four notes, as the sample notes are worded: question, notes, the wanted one, its value."""
    rng = random.Random("citations")
    for _ in range(ITEMS):
        topics, values = rng.sample(TOPICS, 4), rng.sample(natural_values("place"), 4)
        notes = [rng.choice(FORMS).format(*both) for both in zip(topics, values, strict=True)]
        wanted = rng.randrange(4)
        yield f"Where is my {topics[wanted]}?", notes, wanted, values[wanted]


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
    """Right answers have to be cited; the share of right answers is the benchmark's to measure."""
    read = right = 0
    for number, (question, notes, wanted, value) in enumerate(items()):
        answer = await agent.answer(asked(user, question, notes, number))
        if value in answer.text:
            read += 1
            right += cited_for(answer, value) == {wanted}
        assert cited_for(answer, "is at") <= {None}
    assert read >= READ, f"{read} of {ITEMS}"
    assert right >= RIGHT_SHARE * read, f"{right} of {read}"


async def test_two_notes_that_name_two_places_are_shown_as_such(agent: Agent, user: UserModel) -> None:
    answer = await agent.answer(asked(user, "Where is my piano lesson?", TWO_PLACES))
    (conflict,) = answer.conflicts
    said = [(one.citation, one.would_say) for one in conflict.passages]
    assert said == [(0, "Fern Gallery"), (1, "Hazel Hammer")]
    assert conflict.text in answer.text
    other = await agent.answer(
        asked(user, "Where is my piano lesson?", (TWO_PLACES[0], "The swim course takes place at Rose Tower."))
    )
    assert other.conflicts == []


async def test_a_broken_line_costs_no_citation(demo_core: CoreProcess, user: UserModel) -> None:
    question = asked(user, "When does the place of my piano lesson open?", TWO_PLACES)
    answers = []
    async with switchboard(demo_core.address) as board:
        for fault in (None, Fault(lambda: board.cut(demo_core.address), 0, 5)):
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
