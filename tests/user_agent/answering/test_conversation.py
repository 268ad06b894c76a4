"""A conversation in the prompts of both sides: what the core sees of it, and what only the user model sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
import torch

from ssd2.algorithm.projection import StepPosition
from ssd2.errors import CoreError
from ssd2.logits.packed import CoreLogits, as_received
from ssd2.models.chat import BRIEFLY, Message
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
from user_agent.line.line import CoreLine
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
    notes = "Notes of the user:\n\nThe code is 4711.\n\nThe key is blue."
    assert user == f"[system] Be brief.\n\n{notes} {said_before}"
    assert service.searched == ["And the code?", "Where is the key?"]


async def test_an_answer_composed_on_the_device_never_crosses_after_a_change_of_mode(service: Service) -> None:
    private = await service.ask("Where is the key?", lambda_user=1.0)
    assert not private.has_crossed
    assert private.text
    for setting in (0.0, 0.5):
        await service.ask("Why?", *said("Where is the key?", private.text), lambda_user=setting)
        assert service.core_prompts[-1] == f"[system] {BRIEFLY} [user] Where is the key? [user] Why? [assistant]"
    assert f"[assistant] {private.text} [user]" in service.user_prompts[-1]


async def test_the_beginning_of_a_private_answer_and_what_goes_on_behind_it_do_not_cross(service: Service) -> None:
    private = (await service.ask("Where is the key?", lambda_user=1.0)).text
    for text in (private.split()[0], f"{private} and more", private.replace(" ", "\n\n")):
        assert service.crossed.part_of(text) == ""


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
    state = AppState(AgentConfig(), {}, "sk-test", service.answering, None, CoreLine(None))
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


async def test_what_a_client_made_up_itself_is_its_own_to_send(service: Service) -> None:
    await service.ask("Where is the key?", lambda_user=1.0)
    assert service.crossed.part_of("An answer from elsewhere.") == "An answer from elsewhere."


def test_answers_of_a_history_without_notes_never_cross() -> None:
    crossed = Crossed(memory_database(), lambda: ["The code is 4711."])
    assert crossed.part_of("The code is 4711.") == ""
    crossed.note("The code is 4711.", "The code is 4711.")
    assert crossed.part_of("The code is 4711.") == "The code is 4711."


def test_a_part_that_crossed_keeps_its_words_whole() -> None:
    crossed = Crossed(memory_database(), list)
    crossed.note("The code\nis 4711 now.", "The code\nis 47")
    assert crossed.part_of("The code\nis 4711 now.") == "The code\nis"
    assert crossed.part_of("The code\nis") == "The code\nis"


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
    assert capsys.readouterr().err.startswith("The models see the earlier questions and answers.")
    first, second = service.core_prompts
    assert first == f"[system] {BRIEFLY} [user] Where is the key? [assistant]"
    assert second.startswith(f"{first} ")
    assert second.endswith(" [user] Why? [assistant]")


def test_a_conversation_may_begin_with_an_answer_and_hold_empty_ones() -> None:
    history = [Message("assistant", "Hello."), Message("user", "Hi"), Message("assistant", " "), SYSTEM]
    conversation = Conversation.of(history, lambda text: text)
    assert conversation == Conversation("Be brief.", (Turn("", "Hello.", "Hello."), Turn("Hi", " ", " ")))
    assert [message.content for message in conversation.for_core("Where?")] == ["Be brief.", "Hello.", "Hi", "Where?"]


async def test_notes_are_safe_from_several_threads(service: Service) -> None:
    texts = [f"Answer {number} of many." for number in range(20)]
    await asyncio.gather(*(asyncio.to_thread(service.crossed.note, text, "") for text in texts))
    assert [service.crossed.part_of(text) for text in texts] == [""] * 20
