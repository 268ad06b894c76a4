"""What a question becomes: the room for its answer, and the passages that go with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from keyring.backends.fail import Keyring as NoKeyring
from typer.testing import CliRunner

from ssd2.errors import PromptTooLong
from ssd2.models.checkpoint import fingerprint
from ssd2.wire.codec import OpenRequest
from tests.user_agent.answering.test_run import FakeClient, FakeStream
from user_agent.answering.history_entry import keep_answer
from user_agent.answering.service import Answered, Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.commands.app import app
from user_agent.commands.chat import _conversation
from user_agent.commands.render import remarks
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.history import History
from user_agent.store.tuned import Choice, Measured, save_choice

QUESTION = "What is my shed code?"
NONE: list[Passage] = []
FEW = [Passage("The shed code is 4711.", Path("notes/home.md"), 3)]
MANY = [Passage(f"The code for the shed is {number}.", Path("notes/sheds.md"), number) for number in range(1, 40)]
LONG = [Passage("My shed is green. " * 40 + "The shed code is 4711.", Path("notes/visit.md"), 7), *FEW]


class FakeCore(FakeClient):
    """A client that is entered and left as the real one."""

    async def __aenter__(self) -> FakeCore:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture
def user_model(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def core(user_model: UserModel) -> FakeCore:
    return FakeCore(FakeStream(8), vocabulary_sha256=user_model.vocabulary_sha256)


def answering(user_model: UserModel, found: Sequence[Passage], client: FakeCore, /, **settings: object) -> Answering:
    config = AgentConfig(**{"steps": 2, "lambda_user": 0.3, "alpha": 1.0, **settings})
    return Answering(config, user_model, client, lambda *_: found, Crossed(memory_database(), list), Traces())


def asks(service: Answering, question: str = QUESTION) -> asyncio.Task[Answered]:
    return service.start(service.request(question), "trace")


async def ask(user_model: UserModel, found: Sequence[Passage], **asked: object) -> tuple[Answered, OpenRequest]:
    client = core(user_model)
    service = answering(user_model, found, client)
    answered = await service.start(service.request(QUESTION, seed=1, **asked), "trace")
    return answered, client.opened[0]


@pytest.mark.parametrize("max_tokens", [1, 16, 4096])
async def test_the_core_is_asked_the_same_whatever_the_documents_hold(user_model: UserModel, max_tokens: int) -> None:
    sent = [(await ask(user_model, found, max_tokens=max_tokens))[1] for found in (NONE, FEW, MANY, LONG)]
    assert sent == [sent[0]] * 4
    assert sent[0].max_blocks == min(-(-max_tokens // 8), 64 // 8)


async def test_a_longer_answer_than_there_is_room_for_is_clamped_and_said(user_model: UserModel) -> None:
    answered, opened = await ask(user_model, NONE, max_tokens=4096)
    assert (answered.question.params.max_tokens, answered.question.clamped_from) == (64, 4096)
    assert (opened.max_blocks, len(answered.answer.tokens), answered.finish_reason) == (8, 64, "length")
    assert remarks(answered.question) == [
        "The answer has at most 64 tokens, not 4096: this question leaves the models no more room."
    ]


async def test_the_configured_length_is_clamped_as_well(user_model: UserModel) -> None:
    service = answering(user_model, NONE, core(user_model), max_tokens=4096)
    question = (await asks(service)).question
    assert (question.params.max_tokens, question.clamped_from) == (64, 4096)


async def test_a_length_that_there_is_room_for_is_taken_without_a_word(user_model: UserModel) -> None:
    answered, _ = await ask(user_model, FEW, max_tokens=60)
    assert (answered.question.params.max_tokens, answered.question.clamped_from) == (60, None)
    assert remarks(answered.question) == []


async def test_a_question_that_does_not_fit_is_refused_before_anything_is_sent(user_model: UserModel) -> None:
    client = core(user_model)
    with pytest.raises(PromptTooLong, match="the user model takes at most 96; shorten it") as raised:
        await asks(answering(user_model, NONE, client), "word " * 200)
    assert (raised.value.parameter, raised.value.limit, client.opened) == ("question", 96, [])


async def test_once_the_core_is_known_the_limit_is_the_smaller_of_both(user_model: UserModel) -> None:
    client = core(user_model)
    client.card["max_prompt_tokens"] = 48
    service = answering(user_model, NONE, client)
    for told in (96, 48):
        with pytest.raises(PromptTooLong) as raised:
            await asks(service, "word " * 200)
        assert raised.value.limit == told
        await service.card()
    service.reconfigure(AgentConfig(steps=2), service.user_model, client)
    with pytest.raises(PromptTooLong, match="at most 96"):
        await asks(service, "word " * 200)


async def test_an_answer_knows_which_passages_did_not_fit(user_model: UserModel) -> None:
    client = core(user_model)
    service = answering(user_model, [*FEW, *MANY], client)
    question = (await asks(service)).question
    assert [*question.passages, *question.left_out] == [*FEW, *MANY]
    start = service.traces.get("trace").events[0].data
    assert start["left_out"][0] == {
        "source": "notes/sheds.md",
        "line": question.left_out[0].line,
        "page": None,
        "heading": "",
        "slide": None,
        "sheet": None,
    }
    (said,) = remarks(question)
    assert said.startswith(f"{len(question.left_out)} more passages were found but did not fit: sheds.md:")
    assert said.endswith(f"and {len(question.left_out) - 5} others")


async def test_one_passage_that_did_not_fit_is_named(user_model: UserModel) -> None:
    unbroken = Passage("my shed " * 200, Path("notes/visit.md"), 7)
    answered, _ = await ask(user_model, [unbroken])
    assert remarks(answered.question) == ["1 more passage was found but did not fit: visit.md:7"]


async def test_a_citation_of_a_cut_passage_is_what_the_model_was_given(user_model: UserModel) -> None:
    answered, _ = await ask(user_model, LONG)
    cut, *others = answered.question.passages
    assert cut.is_cut
    assert "The shed code is 4711." in cut.text
    assert len(cut.text) < len(LONG[0].text)
    with_docs = user_model.tokenizer.encode_prompt(QUESTION, [cut.text, *(p.text for p in others)], bos_token_id=1)
    assert answered.prompt_tokens == len(with_docs)


async def test_what_would_be_given_is_what_an_answer_is_given(user_model: UserModel) -> None:
    for found in (NONE, FEW, MANY, LONG):
        service = answering(user_model, found, core(user_model))
        shown = await service.passages_for(service.request(QUESTION))
        question = (await asks(service)).question
        assert (shown.passages, shown.left_out, shown.why_none) == (question.passages, question.left_out, None)


async def test_where_lambda_is_0_no_passage_is_given_and_it_is_said_why(user_model: UserModel) -> None:
    service = answering(user_model, FEW, core(user_model), lambda_user=0.0)
    shown = await service.passages_for(service.request(QUESTION))
    assert (await asks(service)).question.passages == shown.passages == ()
    assert shown.left_out == FEW
    assert shown.why_none.startswith("lambda_user is 0, so no passage is used")


@pytest.fixture
def tuned(user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choice:
    """λ 0.4 and α 0 for the user model and the core's model c…c."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    pair = {"core_sha256": "c" * 64, "core_model": "fake", "user_sha256": fingerprint(user_folder)}
    measured = {"questions": 12, "seed": 5, "tuned_on": "2026-11-21", "alike": ()}
    curve = (Measured(0.4, 0.0, 0.5, 0.25, 0.75),)
    choice = Choice(**pair, lambda_user=0.4, alpha=0.0, source="documents", **measured, curve=curve)
    save_choice(choice)
    return choice


@pytest.mark.parametrize(
    ("given", "sha256", "expected", "is_tuned", "calls"),
    [
        ({}, "c" * 64, (0.4, 0.0), True, 3),
        ({"alpha": 1.0}, "c" * 64, (0.4, 1.0), True, 3),
        ({"lambda_user": 0.2}, "c" * 64, (0.2, 0.0), True, 3),
        ({"lambda_user": 0.2, "alpha": 0.5}, "c" * 64, (0.2, 0.5), False, 2),
        ({"lambda_user": 0.0}, "c" * 64, (0.0, 1.0), False, 2),
        ({"lambda_user": 1.0}, "c" * 64, (1.0, 1.0), False, 0),
        ({}, "d" * 64, ("auto", 1.0), False, 3),
    ],
)
async def test_what_is_given_wins_over_what_is_tuned_for_the_pair(
    user_model: UserModel,
    user_folder: Path,
    tuned: Choice,
    given: dict[str, float],
    sha256: str,
    expected: tuple[float, float],
    is_tuned: bool,
    calls: int,
) -> None:
    client = core(user_model)
    client.card["model_sha256"] = sha256
    settings = {"lambda_user": None, "alpha": None, "user_model": user_folder, "max_tokens": 8}
    service = answering(user_model, FEW, client, **settings)
    answered = await service.start(service.request(QUESTION, **given), "trace")
    used = answered.question.collaboration
    assert (used.lambda_user, used.alpha) == expected
    assert answered.tuned == (tuned if is_tuned else None)
    assert len(client.told_of_waits) == calls, "the core is asked for its model only where that decides something"


async def test_without_a_choice_for_this_user_model_no_core_is_asked_first(
    user_model: UserModel, tuned: Choice, core_folder: Path
) -> None:
    client = core(user_model)
    settings = {"lambda_user": None, "alpha": None, "user_model": core_folder, "max_tokens": 8}
    answered = await asks(answering(user_model, FEW, client, **settings))
    assert (answered.tuned, len(client.told_of_waits)) == (None, 2)


@pytest.fixture
def fake_core(user_model: UserModel, user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    """What `user-agent ask` asks, with nothing of this machine's user."""
    client = core(user_model)
    monkeypatch.setattr("user_agent.line.line.CoreClient", lambda *_, **__: client)
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings = {"data_dir": tmp_path / "data", "user_model": user_folder, "core": "127.0.0.1:1", "steps": 2}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLINGSHOT_{name.upper()}", str(value))
    return client


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "sheds.md").write_text("\n\n".join(passage.text for passage in MANY))
    return folder


def test_ask_sends_the_same_whatever_the_documents_hold(fake_core: FakeCore, notes: Path) -> None:
    for docs in ((), ("--docs", str(notes))):
        done = CliRunner().invoke(app, ["ask", QUESTION, "--seed", "1", "--max-tokens", "4096", "--no-log", *docs])
        assert done.exit_code == 0, done.output
    assert fake_core.opened[0] == fake_core.opened[1]
    assert fake_core.opened[0].max_blocks == 8


def test_ask_says_what_did_not_fit(fake_core: FakeCore, notes: Path) -> None:
    asked = ["ask", QUESTION, "--docs", str(notes), "--max-tokens", "4096"]
    shown = CliRunner().invoke(app, asked).stderr
    assert "The answer has at most 64 tokens, not 4096" in shown
    assert "more passages were found but did not fit: sheds.md:" in shown
    answer = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert (answer["max_tokens"], answer["clamped_from"]) == (64, 4096)
    assert len(answer["citations"]) + len(answer["left_out"]) == len(MANY)
    assert answer["left_out"][0]["source"] == str(notes / "sheds.md")


def test_ask_marks_a_citation_that_is_cut(fake_core: FakeCore, notes: Path) -> None:
    (notes / "sheds.md").unlink()
    (notes / "green.md").write_text("\n\n".join(["The shed, the code and my key are old. " * 5] * 2))
    assert "green.md:3, in part  The shed" in CliRunner().invoke(app, ["ask", QUESTION, "--docs", str(notes)]).stderr


async def test_a_chat_says_at_its_start_that_questions_stand_alone_and_what_did_not_fit(
    user_model: UserModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter([QUESTION, "word " * 200, ""])
    monkeypatch.setattr("user_agent.commands.chat._line", lambda: next(lines))
    service = answering(user_model, MANY, core(user_model), max_tokens=4096)
    await _conversation(service, None, watch=False)
    shown = capsys.readouterr().err
    assert shown.startswith("Each question stands alone: the models do not see the earlier ones.")
    assert "The answer has at most 64 tokens, not 4096" in shown
    assert "more passages were found but did not fit: sheds.md:" in shown
    assert "the user model takes at most 96; shorten it\n" in shown, "chat has no option for it"


async def test_what_does_not_fit_of_private_context_is_said_and_its_text_is_kept_nowhere(user_model: UserModel) -> None:
    long = "My dentist appointment is at Amber Arch. " * 20
    answered, _ = await ask(user_model, NONE, private_context=long)
    assert remarks(answered.question) == [
        "The private context is given in part: the sentences that fit, those that match the question first."
    ]
    at_zero, _ = await ask(user_model, NONE, private_context=long, lambda_user=0.0)
    assert remarks(at_zero.question) == ["The private context is left out: it is not read at λ 0."]
    unbroken, _ = await ask(user_model, NONE, private_context="dentist " * 300)
    assert remarks(unbroken.question) == ["The private context is left out: it does not fit beside this question."]
    history = History(memory_database())
    keep_answer(history, answered, "trace")
    (conversation,) = history.conversations()
    kept = json.dumps([(one.text, {**one.data, "tokens": []}) for one in history.messages(conversation.id)])
    assert "Amber Arch" not in kept
    assert '"private_context": "in part"' in kept


async def test_private_context_counts_among_the_tokens_of_the_prompt(user_model: UserModel) -> None:
    bare, _ = await ask(user_model, NONE)
    given, _ = await ask(user_model, NONE, private_context="My name is Mallory.")
    added = len(user_model.prompt(QUESTION, private_context="My name is Mallory.")) - len(user_model.prompt(QUESTION))
    assert given.prompt_tokens == bare.prompt_tokens + added
