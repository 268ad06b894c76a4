"""A conversation in the prompts of both sides: what the core sees of it, and what only the user model sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
import torch

from ssd2.algorithm.projection import StepPosition
from ssd2.errors import CoreError, PromptTooLong
from ssd2.logits.packed import CoreLogits, as_received
from ssd2.models.chat import BRIEFLY, Message
from ssd2.models.layouts import ANSWER, NOTE, laid_out
from tests.families import save_llama
from tests.user_agent.answering.test_run import FakeClient, FakeStream, V
from user_agent.answering import user_model as user_models
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.conversation import Conversation, Turn
from user_agent.answering.service import Answered, Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.state import AppState
from user_agent.commands.chat import _conversation
from user_agent.commands.render import remarks
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.documents.search import search
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
CHAT = "/v1/chat/completions"
SYSTEM = Message("system", "Be brief.")
KEY, CODE = (
    Passage(text, Path("notes.md"), line) for line, text in enumerate(["The key is blue.", "The code is 4711."])
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> UserModel:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, V)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return UserModel.load(folder, with_weights=True)


class Service:
    """An agent with a core that answers at random; prompts of both sides are noted as text."""

    def __init__(self, model: UserModel, monkeypatch: pytest.MonkeyPatch, **card: object) -> None:
        shown = {"family": "autoregressive", "vocabulary_sha256": model.vocabulary_sha256, "max_prompt_tokens": 2000}
        self.client = FakeClient(FakeStream(1), **shown, **card)
        self.model, self.searched, self.user_prompts = model, [], []
        self.crossed = Crossed(memory_database(), list)
        config = AgentConfig(lambda_user=0.5, alpha=1.0, max_tokens=4, temperature=0)
        self.answering = Answering(config, model, self.client, self.search, self.crossed, Traces())
        computed = user_models.user_terms

        def noted(network: object, with_docs: list[list[int]], *others: object) -> object:
            self.user_prompts.append(self.text(with_docs[0]))
            return computed(network, with_docs, *others)

        monkeypatch.setattr(user_models, "user_terms", noted)

    def text(self, ids: Sequence[int]) -> str:
        return self.model.tokenizer.decode(ids)

    def search(self, question: str, _: object) -> list[Passage]:
        self.searched.append(question)
        return [passage for passage in (KEY, CODE) if passage.text.split()[1] in question]

    @property
    def core_prompts(self) -> list[str]:
        return [self.text(request.prompt_ids) for request in self.client.opened]

    async def ask(self, question: str, *history: Message, **given: object) -> Answered:
        request = self.answering.request(question, history=history, **given)
        return await self.answering.start(request, "trace")


@pytest.fixture
def service(model: UserModel, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(model, monkeypatch)


def said(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


async def test_history_and_system_prompt_stand_in_both_prompts_and_passages_in_one(service: Service) -> None:
    await service.ask("And the code?", SYSTEM, *said("Where is the key?", "In the hall."))
    (core,), (user,) = service.core_prompts, service.user_prompts
    said_before = "[user] Where is the key? [assistant] In the hall. [user] And the code? [assistant]"
    assert core == f"[system] Be brief. {said_before}"
    notes = "Notes of the user:\n\nThe key is blue.\n\nThe code is 4711."
    assert user == f"[system] Be brief.\n\n{notes} {said_before}"


async def test_the_fact_first_layout_stands_in_both_prompts_and_passages_in_one(service: Service) -> None:
    earlier = said("Where is the key?", f"The key is in the hall. {ANSWER} in the hall.")
    await service.ask("And the code?", SYSTEM, *earlier, answer_layout="fact-first")
    (core,), (user,) = service.core_prompts, service.user_prompts
    examples = " ".join(f"[{message.role}] {message.content}" for message in laid_out([], "fact-first"))
    turns = f"[user] Where is the key? [assistant] {NOTE} {earlier[1].content} [user] And the code? [assistant]{NOTE}"
    notes = "Notes of the user:\n\nThe key is blue.\n\nThe code is 4711."
    assert core == f"[system] Be brief. {examples} {turns}"
    assert user == f"[system] Be brief.\n\n{notes} {examples} {turns}"


async def test_room_for_passages_is_counted_beside_the_layout(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [replace(KEY, line=number) for number in range(400)]
    monkeypatch.setattr(service.answering, "_search", lambda *_: many)
    asked = {"answer_layout": "fact-first"}
    shown = await service.answering.passages_for(service.answering.request("Where is the key?", **asked))
    question = (await service.ask("Where is the key?", **asked)).question
    prompt = service.model.prompt(question.instruction, question.passages, question.conversation)
    assert list(shown.passages) == list(question.passages)
    assert len(question.passages) < len(many)
    assert len(prompt) <= service.model.config.max_prompt_tokens_before(question.params.max_answer_tokens)


NOTES = [
    Passage(text, Path(name), 1)
    for name, text in (
        ("tent.md", "The tent sleeps four people and weighs 5 kg."),
        ("tent.md", "It has to be dried before we roll it up, or it gets mouldy."),
        ("bees.txt", "How heavy the honey boxes are: each is 20 kg when it is full."),
        ("garage.txt", "It is dark, so do not lift it alone; it is cold and it is old."),
        ("network.txt", "The password of the network is mossy-kettle."),
        ("course.md", "The course for beginners starts on 9 May. Maren Holt teaches it."),
        ("people.csv", "Maren Holt: phone 555 0142"),
    )
]


@pytest.mark.parametrize(
    ("said", "question", "first"),
    [
        (["How many people does the tent sleep?", "Four."], "And how heavy is it?", [0]),
        (["How many people does the tent sleep?", "Four."], "How is it dried?", [0, 1]),
        (["How many people does the tent sleep?", "Four."], "What is the password of the network?", [0, 4]),
        (["Who teaches the course?", "Maren Holt teaches the course."], "How do I reach her?", [6, 5]),
    ],
)
async def test_a_question_is_searched_for_as_it_goes_on_from_the_turn_before(
    service: Service, monkeypatch: pytest.MonkeyPatch, said: list[str], question: str, first: list[int]
) -> None:
    """The last turn's passages come first, and those of a question with its own subject among the first."""
    monkeypatch.setattr(service.answering, "_search", lambda words, _: search(NOTES, words))
    answered = await service.ask(question, Message("user", said[0]), Message("assistant", said[1]))
    given = [*answered.question.passages, *answered.question.left_out]
    assert given[: len(first)] == [NOTES[at] for at in first]
    assert len(given) == len(set(given))


async def test_what_would_be_given_beside_a_system_prompt_is_what_an_answer_is_given(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [replace(KEY, line=number) for number in range(400)]
    monkeypatch.setattr(service.answering, "_search", lambda *_: many)
    asked = {"system_prompt": "Be brief, and be kind. " * 20, "private_context": "I am Mallory."}
    shown = await service.answering.passages_for(service.answering.request("Where is the key?", **asked))
    given = (await service.ask("Where is the key?", **asked)).question
    assert (shown.passages, shown.private_context) == (given.passages, given.private_context)
    assert len(shown.passages) < len(many)


async def test_an_answer_composed_on_the_device_never_crosses_after_a_change_of_mode(service: Service) -> None:
    private = await service.ask("Where is the key?", lambda_user=1.0)
    assert not private.has_crossed
    assert private.text
    for setting in (0.0, 0.5):
        await service.ask("Why?", *said("Where is the key?", private.text), lambda_user=setting)
        assert service.core_prompts[-1] == f"[system] {BRIEFLY} [user] Where is the key? [user] Why? [assistant]"
    assert f"[assistant] {private.text} [user]" in service.user_prompts[-1]


async def test_of_a_long_answer_the_last_token_has_not_crossed(service: Service) -> None:
    answered = await service.ask("Where is the key?")
    assert answered.finish_reason == "length"
    told = [token for kind, _, ids in service.client.stream.told if kind == "commit" for token in ids]
    assert answered.crossed == service.text(told) != answered.text
    await service.ask("Why?", *said("Where is the key?", answered.text))
    assert answered.text not in service.core_prompts[-1]
    assert f"[assistant] {answered.text} [user]" in service.user_prompts[-1]


def answers(service: Service, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have the core write a text."""
    ids = iter([*service.model.tokenizer.encode(text), service.model.config.stop_ids[0]])

    async def logits(due: StepPosition) -> CoreLogits:
        found = torch.zeros(1, 1, V)
        found[..., next(ids)] = 100.0
        return as_received(found, service.client.stream.logits_format)

    monkeypatch.setattr(service.client.stream, "logits", logits)


async def test_an_answer_that_ends_by_itself_crosses_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(service, monkeypatch, "It is red.")
    answered = await service.ask("Where is the key?", lambda_user=0.0, max_tokens=20)
    assert (answered.text, answered.finish_reason) == ("It is red.", "stop")
    assert answered.has_crossed
    assert service.crossed.part_of(answered.text) == answered.text


async def test_what_a_model_thinks_is_never_shown(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    written = "<think>A secret plan.</think>It is red."
    answers(service, monkeypatch, written)
    answered = await service.ask("Which?", lambda_user=0.0, max_tokens=60)
    assert answered.text == "".join(token.text for token in answered.tokens).strip() == "It is red."
    trace = [event.data["text"] for event in service.answering.traces.get("trace").events if "text" in event.data]
    assert not any("plan" in text for text in trace)
    answers(service, monkeypatch, written)
    async with rest(service) as http:
        response = await http.post(CHAT, json=body(Message("user", "Which?"), stream=True, max_tokens=60))
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "It is red."


def rest(service: Service) -> httpx.AsyncClient:
    state = AppState(
        AgentConfig(), {}, AccessKeys(Path("no-folder"), "sk-test"), service.answering, None, CoreLine(None)
    )
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": "Bearer sk-test"}
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


def body(*messages: Message, **changes: object) -> dict[str, object]:
    return {
        "model": "slingshot",
        "messages": [asdict(message) for message in messages],
        "slingshot": {"lambda_user": changes.pop("lambda_user", 0.0)},
        **changes,
    }


async def test_a_rest_clients_messages_arrive_at_both_models(service: Service) -> None:
    asked = body(SYSTEM, *said("Where is the key?", "In the hall."), Message("user", "And the code?"), lambda_user=0.5)
    asked["messages"][0]["role"] = "developer"
    asked["messages"].insert(1, {"role": "tool", "content": "x"})
    async with rest(service) as http:
        response = await http.post(CHAT, json=asked)
    assert response.headers["x-slingshot-ignored"] == "tool messages"
    before = "[user] Where is the key? [assistant] In the hall. [user] And the code? [assistant]"
    assert service.core_prompts == [f"[system] Be brief. {before}"]
    assert service.user_prompts[0].startswith("[system] Be brief.\n\nNotes of the user:")
    assert service.user_prompts[0].endswith(before)
    assert response.json()["slingshot"]["left_out_turns"] == 0


async def test_a_private_answer_over_rest_does_not_cross_when_its_client_sends_it_back(service: Service) -> None:
    question = Message("user", "Where is the key?")
    async with rest(service) as http:
        answer = (await http.post(CHAT, json=body(question, lambda_user=1.0))).json()
        text = answer["choices"][0]["message"]["content"]
        await http.post(CHAT, json=body(question, Message("assistant", text), Message("user", "Why?")))
    assert answer["slingshot"]["has_crossed"] is False
    assert service.core_prompts == [f"[system] {BRIEFLY} [user] Where is the key? [user] Why? [assistant]"]


async def test_an_answer_that_was_stopped_midway_is_noted_as_well(service: Service) -> None:
    class Stopped(Observer):
        text = ""

        def committed(self, seen: CommittedBlock) -> bool:
            self.text = seen.text
            raise CoreError("gone")

    request, observer = service.answering.request("Where is the key?", lambda_user=1.0), Stopped()
    with pytest.raises(CoreError):
        await service.answering.start(request, "trace", observer)
    assert observer.text
    assert service.crossed.part_of(observer.text) == ""


async def test_a_block_is_noted_before_it_is_shown(service: Service) -> None:
    """Whoever reads a stream may stop it and ask on at once, while the agent still works at it."""

    class Reader(Observer):
        parts: list[str] = []  # noqa: RUF012

        def committed(self, seen: CommittedBlock) -> bool:
            self.parts.append(service.crossed.part_of(seen.text))
            return True

    request, reader = service.answering.request("Where is the key?", lambda_user=1.0), Reader()
    await service.answering.start(request, "trace", reader)
    assert len(reader.parts) == 4
    assert not any(reader.parts)


async def test_a_text_that_stopped_an_answer_is_no_way_around_the_notes(service: Service) -> None:
    whole = (await service.ask("Where is the key?", lambda_user=1.0)).text
    stopped = await service.ask("Where is the key?", lambda_user=1.0, stop_texts=(whole[-2:],))
    assert stopped.text == whole[:-2].rstrip()
    await service.ask("Why?", *said("Where is the key?", stopped.text), lambda_user=0.0)
    assert service.core_prompts == [f"[system] {BRIEFLY} [user] Where is the key? [user] Why? [assistant]"]


@pytest.mark.parametrize("thought", ["<think></think>", "<think>Where is it?</think>\n\n", "Well.</think>"])
async def test_a_thought_put_before_an_answer_is_no_way_around_the_notes(service: Service, thought: str) -> None:
    """Clients of models that think keep their thoughts, and prompts leave them out."""
    service.crossed.note("The code is 4711.", "")
    await service.ask("Why?", *said("And?", f"{thought}The code is 4711."), lambda_user=0.0)
    assert service.core_prompts == [f"[system] {BRIEFLY} [user] And? [user] Why? [assistant]"]


async def test_an_answer_cut_into_messages_does_not_cross(service: Service) -> None:
    service.crossed.note("The code is 4711. It opens the shed.", "")
    parts = [Message("assistant", text) for text in ("The code is 4711.", "It opens the shed.")]
    for answers in (parts, [Message("assistant", "Well."), *parts]):
        await service.ask("Why?", Message("user", "And?"), *answers, lambda_user=0.0)
    assert service.core_prompts == [
        f"[system] {BRIEFLY} [user] And? [user] Why? [assistant]",
        f"[system] {BRIEFLY} [user] And? [assistant] Well. [user] Why? [assistant]",
    ]


async def test_what_a_client_made_up_itself_is_its_own_to_send(service: Service) -> None:
    await service.ask("Where is the key?", lambda_user=1.0)
    assert service.crossed.part_of("An answer from elsewhere.") == "An answer from elsewhere."


async def test_the_oldest_turns_are_left_out_first_and_the_answer_says_so(service: Service) -> None:
    history = [message for number in range(40) for message in said(f"Question {number}? " + "word " * 60, "Yes.")]
    answered = await service.ask("And the code?", SYSTEM, *history)
    left = answered.question.left_out_turns
    assert 0 < left < 40
    for prompt in (service.core_prompts[0], service.user_prompts[0]):
        assert f"Question {left}?" in prompt
        assert f"Question {left - 1}?" not in prompt
        assert prompt.startswith("[system] Be brief.")
    assert answered.question.passages == [CODE]
    assert f"{left} earlier turns left out: the oldest do not fit beside this question." in remarks(answered.question)
    assert service.answering.traces.get("trace").events[0].data["left_out_turns"] == left


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_rest_client_and_a_chat_are_told_of_turns_that_were_left_out(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_stream: bool
) -> None:
    service.client.card["max_prompt_tokens"] = 80
    long = "Old? " + "word " * 50
    history = [*said(long, "Yes."), *said("New?", "No.")]
    async with rest(service) as http:
        response = await http.post(CHAT, json=body(*history, Message("user", "Why?"), stream=is_stream))
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    last = next(chunk for chunk in reversed(chunks) if "slingshot" in chunk) if is_stream else response.json()
    assert last["slingshot"]["left_out_turns"] == 1
    lines = iter([*["x " * 12] * 4, ""])
    monkeypatch.setattr("user_agent.commands.chat._line", lambda: next(lines))
    await _conversation(service.answering, None, watch=False)
    assert "1 earlier turn left out: the oldest do not fit beside this question." in capsys.readouterr().err


async def test_what_the_core_sees_of_a_long_conversation_depends_on_nothing_private(
    model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    for private in ("No.", "word " * 900):
        service = Service(model, monkeypatch)
        service.crossed.note(private, "")
        history = [message for number in range(4) for message in said(f"Question {number}?", private)]
        await service.ask("And the code?", *history, seed=1)
        sent.append(service.client.opened)
    assert sent[0] == sent[1]
    assert "Question 0?" in service.core_prompts[0]
    assert "Question 0?" not in service.user_prompts[0]


async def test_turns_are_left_out_where_the_core_takes_shorter_prompts(
    model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(model, monkeypatch)
    service.client.card["max_prompt_tokens"] = 80
    answered = await service.ask("Why?", *said("Old? " + "word " * 50, "Yes."), *said("New?", "No."))
    assert answered.question.left_out_turns == 1
    assert service.core_prompts == [f"[system] {BRIEFLY} [user] New? [assistant] No. [user] Why? [assistant]"]


async def test_a_system_prompt_that_is_too_long_is_named(service: Service) -> None:
    with pytest.raises(PromptTooLong, match=r"^the question and the system prompt have \d+ tokens, .*; shorten them$"):
        await service.ask("Why?", Message("system", "word " * 3000), *said("New?", "No."))


async def test_models_without_a_template_read_the_last_question_only(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = UserModel.load(user_folder, with_weights=True)
    service = Service(model, monkeypatch)
    service.client.card["family"] = "ssd-2"
    service.client.stream.block_size = 8
    answered = await service.ask("And the code?", *said("Where is the key?", "In the hall."))
    assert service.client.opened[0].prompt_ids == tuple(model.core_prompt("And the code?"))
    assert answered.question.left_out_turns == 1


async def test_a_chat_goes_on_from_turn_to_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["Where is the key?", "Why?", ""])
    monkeypatch.setattr("user_agent.commands.chat._line", lambda: next(lines))
    await _conversation(service.answering, None, watch=False)
    shown = capsys.readouterr().err
    assert shown.startswith("The models see the earlier questions and answers.")
    assert shown.count("Cut off at 4 tokens, the longest answer; --max-tokens N allows a longer one.") == 2
    first, second = service.core_prompts
    assert first == f"[system] {BRIEFLY} [user] Where is the key? [assistant]"
    assert second.startswith(f"{first} ")
    assert second.endswith(" [user] Why? [assistant]")


def test_a_conversation_may_begin_with_an_answer_and_hold_empty_ones() -> None:
    history = [Message("assistant", "Hello."), Message("user", "Hi"), Message("assistant", " "), SYSTEM]
    conversation = Conversation.of(history, lambda text: text)
    assert conversation == Conversation("Be brief.", (Turn("", "Hello.", "Hello."), Turn("Hi", " ", " ")))
    assert [message.content for message in conversation.for_core("Where?")] == ["Be brief.", "Hello.", "Hi", "Where?"]


class Parts(Observer):
    """Asks, at each part that is shown, what of it a later conversation would send to a core."""

    def __init__(self, service: Service) -> None:
        self.crossed, self.shown = service.crossed, []

    def committed(self, seen: CommittedBlock) -> bool:
        self.shown.append((seen.text, self.crossed.part_of(seen.text)))
        return True


@pytest.mark.parametrize("lambda_user", [1.0, 0.5])
async def test_a_part_of_an_answer_is_withheld_before_it_is_shown(service: Service, lambda_user: float) -> None:
    """The store says the same at this moment as after a kill."""
    parts = Parts(service)
    request = service.answering.request("Where is the key?", lambda_user=lambda_user, max_tokens=6)
    answered = await service.answering.start(request, "trace", parts)
    assert len(parts.shown) > 3
    for (text, part), before in zip(parts.shown, ["", *(text for text, _ in parts.shown)], strict=False):
        sent = "" if lambda_user == 1 else before
        assert len(part) <= len(sent)
        assert text.startswith(part)
        assert not text.split() or part != text
    assert answered.crossed.startswith(service.crossed.part_of(answered.text))


async def test_a_private_answer_cut_within_a_word_does_not_cross(service: Service) -> None:
    """As a client has it whose connection broke between two tokens, or where a stop text stood within a word."""
    parts = Parts(service)
    request = service.answering.request("Where is the key?", lambda_user=1.0, max_tokens=12)
    whole = (await service.answering.start(request, "trace", parts)).text
    within = [text for text, _ in parts.shown if text.split() and not f"{whole} ".startswith(f"{text} ")]
    assert within, "a token ends within a word"
    assert {service.crossed.part_of(text) for text in within} == {""}
    word = max(whole.split(), key=len)
    cut = await service.ask("Where is the key?", lambda_user=1.0, max_tokens=12, stop_texts=(word[1:],))
    assert cut.text
    assert service.crossed.part_of(cut.text) == ""
