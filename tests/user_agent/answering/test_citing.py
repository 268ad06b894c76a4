"""Citations of tokens: the passage of each, and the places about which passages disagree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.collaboration import UserTerms
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.models.predict import begin, begin_sampler
from tests.families import SAVE
from tests.user_agent.answering.test_reading import folder, model, service_of
from tests.user_agent.answering.test_run import FakeClient, FakeStream
from user_agent.answering.answer import Answer, Observer
from user_agent.answering.history_entry import keep_answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.generation import slingshot_answer
from user_agent.commands.answering import print_answer
from user_agent.commands.render import disagreements, taken
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.history import History

__all__ = ["folder", "model"]  # fixtures

ASKED = "Where is my dentist appointment?"
FERN, HAZEL = "Your dentist appointment is at Fern Gallery.", "Your dentist appointment is at Hazel Hammer."
NOTES = [Passage(f"My {text.removeprefix('Your ')}", Path(name), 1) for name, text in (("a.md", FERN), ("b.md", HAZEL))]
PIANO = Passage("My piano lesson is at Rose Tower.", Path("c.md"), 4)


class Written:
    """A predictor whose passes would each write a text, at any timestep, and perhaps another one half as likely."""

    def __init__(self, user_model: UserModel, *rows: str | tuple[str, str]) -> None:
        self._tokenizer, self._stop = user_model.tokenizer, user_model.config.stop_ids[0]
        self._texts = [(row, row) if isinstance(row, str) else row for row in rows]
        self.calls = 0

    def logits(self, view: BlockView) -> Tensor:
        self.calls += 1
        assert len(view.answer_ids) == len(self._texts)
        logits = torch.zeros(len(self._texts), view.block_size, 1782)
        for row, texts in enumerate(self._texts):
            for text, by in zip(texts, (4.0, 6.0), strict=True):
                ids = [*self._tokenizer.encode(text), *[self._stop] * 99][view.answer_ids.shape[1] :]
                for position in range(view.block_size if text else 0):
                    logits[row, position, ids[position]] = max(by + 8, float(logits[row, position, ids[position]]))
        return logits


@pytest.fixture
def user_model(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


@pytest.fixture
def write(user_model: UserModel, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Make the user model's passes write these texts."""

    def patched(*rows: str | tuple[str, str]) -> Written:
        written = Written(user_model, *rows)
        monkeypatch.setattr(UserModel, "terms", lambda *_, **__: UserTerms(written, len(rows)))
        return written

    return patched


def asked(passages: Sequence[Passage] = NOTES, *, block_size: int = 8, **more: object) -> Question:
    params = DecodingParams(block_size, 40, steps=3, projection="greedy")
    mixed = CollaborationParams(1.0, 0.0)
    return Question(ASKED, passages, mixed, params, Seeds.reproducible(1), cites_tokens=True, **more)


def cited(answer: Answer) -> dict[str, object]:
    return {token.text.strip(): token.citation for token in answer.tokens if token.citation is not None}


BOTH = (HAZEL, FERN)
"""What all passages together would have answered, the likelier one last."""


@pytest.mark.parametrize("block_size", [1, 4, 8])
async def test_two_notes_that_disagree_are_named_with_what_each_says(
    user_model: UserModel, write: Written, block_size: int
) -> None:
    write(BOTH, "", FERN, HAZEL, BOTH)
    answer = await Agent(user_model, None).answer(asked(block_size=block_size))
    assert answer.text == FERN
    assert {answer.citation for answer in answer.tokens[5:7]} == {0}
    (conflict,) = answer.conflicts
    # Both passages raise the words before the place alike, and those they do not disagree about.
    assert (conflict.position, conflict.length, conflict.text) == (5, 2, "Fern Gallery")
    assert [(one.citation, one.would_say) for one in conflict.passages] == [(0, "Fern Gallery"), (1, "Hazel Hammer")]


async def test_a_note_about_something_else_is_no_side(user_model: UserModel, write: Written) -> None:
    write(FERN, "", FERN, "Your dentist appointment is at Rose Tower.", FERN)
    answer = await Agent(user_model, None).answer(asked([NOTES[0], PIANO]))
    assert (cited(answer)["Fern"], answer.conflicts) == (0, [])


async def test_what_a_side_says_stands_in_its_passage(user_model: UserModel, write: Written) -> None:
    """A pass that makes something up is no side; one that goes on with it is quoted up to there."""
    write(BOTH, "", FERN, HAZEL, BOTH)
    made_up = Passage("The dentist appointment has moved.", Path("b.md"), 1)
    assert (await Agent(user_model, None).answer(asked([NOTES[0], made_up]))).conflicts == []
    shorter = Passage("The dentist appointment is at Hazel's.", Path("b.md"), 1)
    (conflict,) = (await Agent(user_model, None).answer(asked([NOTES[0], shorter]))).conflicts
    assert [one.would_say for one in conflict.passages] == ["Fern Gallery", "Hazel"]


@pytest.mark.parametrize("block_size", [1, 4, 8])
async def test_long_answers_have_conflicts_in_any_of_their_blocks(
    user_model: UserModel, write: Written, block_size: int
) -> None:
    more = ("The piano lesson is at Rose Tower.", "The piano lesson is at Cedar Kitchen.")
    first, second = (f"{place} {lesson}" for place, lesson in zip((FERN, HAZEL), more, strict=True))
    write((second, first), "", first, second, first)
    passages = [Passage(text, Path(f"{number}.md"), 1) for number, text in enumerate((first, second))]
    answer = await Agent(user_model, None).answer(asked(passages, block_size=block_size))
    assert answer.text == first
    assert [conflict.text for conflict in answer.conflicts] == ["Fern Gallery", "Rose Tower"]
    assert [
        one.passages[1].would_say.startswith(text)
        for one, text in zip(answer.conflicts, ("Hazel", "Cedar"), strict=True)
    ]
    words = [token.text.strip() for token in answer.tokens]
    assert [words[one.position : one.position + one.length] for one in answer.conflicts] == [
        ["Fern", "Gallery"],
        ["Rose", "Tower"],
    ]


async def test_blocks_of_one_token_cost_further_passes_only_where_passages_disagree(
    user_model: UserModel, write: Written
) -> None:
    calls = []
    for together, other in ((FERN, FERN), (FERN, HAZEL), (BOTH, HAZEL)):
        written = write(together, "", FERN, other, together)
        answer = await Agent(user_model, None).answer(asked(block_size=1))
        calls.append(written.calls - answer.timesteps)
    assert calls == [0, 0, 8], "the second note is about something else where only FERN is likely"


async def test_private_context_is_a_source_without_a_number(user_model: UserModel, write: Written) -> None:
    write(BOTH, "", HAZEL, FERN)
    answer = await Agent(user_model, None).answer(asked([NOTES[1]], private_context=FERN))
    assert {cited(answer)[word] for word in ("Fern", "Gallery")} == {"private context"}
    assert answer.conflicts == [], "what it says is kept nowhere"


def test_each_passage_is_read_alone_then_the_private_context_then_all_in_reverse(user_model: UserModel) -> None:
    told: list[list[list[int]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("user_agent.answering.user_model.user_terms", lambda *given: told.append(given[-1]))
        for private_context in ("", "I am Mallory."):
            mixed = CollaborationParams(0.3, 0.0)
            user_model.terms(ASKED, NOTES, mixed, "own", private_context=private_context, cites_tokens=True)
        user_model.terms(ASKED, NOTES, mixed, "own")
        user_model.terms(ASKED, NOTES[:1], mixed, "own", cites_tokens=True)
    alone, given = [[user_model.prompt(ASKED, [note])] for note in NOTES], {"private_context": "I am Mallory."}
    private, turned = user_model.prompt(ASKED, (), **given), user_model.prompt(ASKED, NOTES[::-1])
    assert told == [
        [*alone, [turned]],
        [*alone, [private], [user_model.prompt(ASKED, NOTES[::-1], **given)]],
        [],
        [alone[0]],
    ]


@pytest.mark.parametrize(
    ("family", "self_conditioning", "alpha"),
    [*((family, "own", 0.0) for family in SAVE), ("ssd-2", "projection", 1.0)],
)
def test_a_batch_gives_each_pass_the_logits_that_it_has_alone(
    tmp_path: Path, family: str, self_conditioning: str, alpha: float
) -> None:
    """For every family, over the blocks of an answer; the passes of the mix are those without the option."""
    SAVE[family](tmp_path / "user", 3)
    user_model = UserModel.load(tmp_path / "user", with_weights=True)
    mixed, notes = CollaborationParams(1.0, alpha), [*NOTES, PIANO]
    params = DecodingParams.for_model(
        user_model.config, block_size=min(user_model.config.block_size, 8), max_tokens=17, projection="greedy", steps=4
    )
    terms, without = (
        user_model.terms(ASKED, notes, mixed, self_conditioning, cites_tokens=is_on) for is_on in (True, False)
    )
    prompts = [user_model.prompt(ASKED, some) for some in ((), *([note] for note in notes), notes[::-1])]
    single = [begin(user_model.model, [prompt], self_conditioning) for prompt in prompts]
    sampler = begin_sampler(user_model.config, params, [Seeds.reproducible(2)], ends_at_eos=False)
    steps = 0
    while (view := sampler.due) and (steps := steps + 1):
        user, plain = terms.logits(view), without.logits(view)
        torch.testing.assert_close(user.with_docs, plain.with_docs, rtol=1e-4, atol=1e-3)
        assert (plain.without_docs is None, plain.beside) == (alpha == 0, ())
        for row, one in zip((user.without_docs, *user.beside), single, strict=True):
            torch.testing.assert_close(row, one.logits(view), rtol=1e-4, atol=1e-3)
        sampler.step(user.with_docs)
    assert steps >= 8
    assert sampler.due is None


def test_passes_go_on_by_themselves_and_the_answer_then_goes_on_as_before(tmp_path: Path) -> None:
    """What is kept of a row is cut back to the tokens that the answer has."""
    SAVE["autoregressive"](tmp_path / "user", 3)
    user_model = UserModel.load(tmp_path / "user", with_weights=True)
    mixed = CollaborationParams(1.0, 1.0)
    params = DecodingParams.for_model(user_model.config, max_tokens=6, projection="greedy")
    terms = user_model.terms(ASKED, NOTES, mixed, "own", cites_tokens=True)
    sampler = begin_sampler(user_model.config, params, [Seeds.reproducible(2)], ends_at_eos=False)
    while view := sampler.due:
        user = terms.logits(view)
        for notes, row in zip(([NOTES[0]], [NOTES[1]], NOTES[::-1]), terms.continued(view, 3), strict=True):
            alone = begin(user_model.model, [[*user_model.prompt(ASKED, notes), *view.answer_ids[0].tolist()]], "own")
            expected = begin_sampler(user_model.config, params, [Seeds.reproducible(2)], ends_at_eos=False)
            for _ in range(3):
                expected.step(alone.logits(expected.due))
            assert row[0].tolist() == expected.answers[0]
        torch.testing.assert_close(terms.logits(view).with_docs, user.with_docs)
        sampler.step(user.with_docs)


async def test_at_lambda_0_and_without_the_option_nothing_is_cited(user_model: UserModel) -> None:
    client = FakeClient(FakeStream(8), vocabulary_sha256=user_model.vocabulary_sha256)
    service = Answering(
        AgentConfig(steps=2), user_model, client, lambda *_: NOTES, Crossed(memory_database(), list), Traces()
    )
    for given in ({"cite": "tokens", "lambda_user": 0.0}, {"lambda_user": 0.5, "alpha": 1.0}):
        answered = await service.start(service.request(ASKED, **given), "trace")
        assert (answered.conflicts, {token.citation for token in answered.answer.tokens}) == (None, {None})


async def test_every_face_has_citations_and_conflicts(
    user_model: UserModel, write: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    write(BOTH, "", FERN, HAZEL, BOTH)
    service = Answering(
        AgentConfig(lambda_user=1.0, steps=3),
        user_model,
        None,
        lambda *_: NOTES,
        Crossed(memory_database(), list),
        Traces(),
    )
    given = {"cite": "tokens", "temperature": 0, "alpha": 0}
    answered = await service.start(service.request(ASKED, **given), "trace")
    expected = [
        {
            "position": 5,
            "length": 2,
            "text": "Fern Gallery",
            "passages": [{"citation": 0, "would_say": "Fern Gallery"}, {"citation": 1, "would_say": "Hazel Hammer"}],
        }
    ]
    rest = slingshot_answer(answered, "trace").model_dump()
    assert (rest["conflicts"], rest["tokens"][5]["citation"]) == (expected, 0)
    assert not {"text", "tokens", "conflicts"} & rest["figures"].keys()
    history = History(memory_database())
    kept = history.messages(keep_answer(history, answered, "trace"))[0].data
    assert (kept["conflicts"], kept["tokens"][5]["citation"]) == (expected, 0)
    finals = [event.data for event in service.traces.get("trace").events if event.kind == "token.final"]
    assert finals[5]["citation"] == 0
    json.dumps(service.traces.get("trace").events[-1].data)
    assert disagreements(answered) == [
        "Two of your notes disagree: a.md:1 says “Fern Gallery”, b.md:1 says “Hazel Hammer”."
    ]
    assert taken(answered, 0) == f"“{FERN}”"
    print_answer(answered)
    shown = capsys.readouterr()
    assert shown.out.strip() == FERN, "programs read it"
    assert [line in shown.err.splitlines() for line in (f"    in the answer: “{FERN}”", *disagreements(answered))] == [
        True
    ] * 2
    cut = await service.start(service.request(ASKED, **given, stop_texts=["appointment"]), "other")
    assert (cut.text, cut.conflicts) == ("Your dentist", [])


async def test_a_passage_that_is_deleted_meanwhile_is_still_cited_and_nothing_of_it_is_kept(
    model: UserModel, tmp_path: Path
) -> None:
    """The answer has read it; with the documents goes what the passes alone have read too."""
    files = [tmp_path / f"{number}.md" for number in range(3)]
    found = [Passage(f"Number {number} is blue. " * 30, file, 1) for number, file in enumerate(files)]
    service, rows = service_of(model, found, cite="tokens"), []

    class Removing(Observer):
        def began(self, params: object) -> None:
            service.forget_prompts()

        def reading(self, done: int, total: int) -> None:
            rows.append(total)

    answered = await service.start(service.request(ASKED), "trace", Removing())
    assert rows, "all passes have been read, in parts"
    assert [passage.source for passage in answered.question.passages] == files
    assert answered.conflicts is not None
    assert not model.prompt_cache.bytes


async def test_a_second_question_reads_no_passage_again_for_its_own_pass(model: UserModel) -> None:
    found = [Passage(f"Number {number} is blue. " * 30, Path(f"{number}.md"), 1) for number in range(3)]
    service, totals = service_of(model, found, cite="tokens"), []

    class Reading(Observer):
        def reading(self, done: int, total: int) -> None:
            totals.append(total)

    for question in ("What is blue?", "What is that?"):
        await service.start(service.request(question), question, Reading())
    assert max(totals) > 1000
    assert totals[-1] == max(totals), "of the second question too little was left to be read in parts"


async def test_passes_go_on_only_once_the_line_is_closed(
    user_model: UserModel, write: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a pause would tell the core that passages disagree."""
    client, seen = FakeClient(FakeStream(1), vocabulary_sha256=user_model.vocabulary_sha256), []
    continued = UserTerms.continued

    def noted(terms: UserTerms, view: BlockView, blocks: int) -> object:
        seen.append(client.stream.is_closed)
        return continued(terms, view, blocks)

    monkeypatch.setattr(UserTerms, "continued", noted)
    write(BOTH, "", FERN, HAZEL, BOTH)
    question = replace(asked(block_size=1), collaboration=CollaborationParams(0.9, 0.0))
    answer = await Agent(user_model, client).answer(question)
    assert answer.round_trips > 8
    assert [conflict.text for conflict in answer.conflicts] == ["Fern Gallery"]
    assert seen == [True]
