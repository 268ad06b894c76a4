"""A long prompt on the device: its progress in every face, its end when nobody waits, and what is kept of it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ssd2.algorithm.collaboration import UserTerms
from ssd2.models import prompt_cache
from ssd2.models.causal_lane import ON_CPU, CausalLane
from ssd2.models.chat import Message
from tests.families import save_llama
from tests.user_agent.answering.test_conversation import CHAT, TEMPLATE
from tests.user_agent.answering.test_run import FakeClient, FakeStream, V
from user_agent.answering.answer import Observer
from user_agent.answering.service import KEPT_S, Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.state import AppState
from user_agent.commands.watching import TerminalObserver
from user_agent.config import AgentConfig
from user_agent.documents.collection import Collection
from user_agent.documents.passage import Passage
from user_agent.errors import CoreLost
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys
from user_agent.store.answers import AnswerRecords
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database
from user_agent.store.history import History

KEY = "sk-test"
PAGE = Passage("The garden has seven old apple trees. " * 60, Path("garden.md"), 1)
QUESTION, OTHER = "How many trees?", "What grows in the garden?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    save_llama(folder, V)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def model(folder: Path) -> UserModel:
    return UserModel.load(folder, with_weights=True)


def service_of(model: UserModel, found: Sequence[Passage] = (PAGE,), **settings: object) -> Answering:
    config = AgentConfig(**{"lambda_user": 1.0, "alpha": 1.0, "max_tokens": 3, "temperature": 0, **settings})
    return Answering(config, model, None, lambda *_: found, Crossed(memory_database(), list), Traces())


@pytest.fixture
def service(model: UserModel) -> Answering:
    return service_of(model)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every part that is read of a prompt."""
    read: list[int] = []
    run = CausalLane._run

    def counted(lane: Any, slots: Any, contexts: Any, done: Any, tokens: int, **options: Any) -> Any:
        if tokens > 1:
            read.append(tokens)
        return run(lane, slots, contexts, done, tokens, **options)

    monkeypatch.setattr(CausalLane, "_run", counted)
    return read


async def ask(service: Answering, question: str = QUESTION, observer: Observer | None = None, **given: object) -> str:
    return (await service.start(service.request(question, **given), "trace", observer)).text


async def test_the_trace_says_how_far_a_long_prompt_is_read(service: Answering) -> None:
    await ask(service)
    events = service.traces.get("trace").events
    read = [event.data for event in events if event.kind == "prompt.read"]
    assert events[0].kind == "answer.start"
    assert len(read) >= 3
    assert read[0] == {"done": 0, "total": read[-1]["total"]}
    assert read[-1]["done"] == read[-1]["total"] > ON_CPU.alone
    assert [event.kind for event in events[1:3]] == ["decoding.start", "prompt.read"], "before the first block"


async def test_a_stream_has_the_progress_in_comments_that_clients_skip(service: Answering) -> None:
    state = AppState(AgentConfig(), {}, AccessKeys(Path("no-folder"), KEY), service, None, CoreLine(None))
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
        body = {"messages": [{"role": "user", "content": QUESTION}], "model": "slingshot", "stream": True}
        lines = (await http.post(CHAT, json=body)).text.split("\n\n")
        legacy = (await http.post("/v1/completions", json={**body, "messages": None, "prompt": OTHER})).text
    comments = [line for line in lines if line.startswith(":")]
    assert comments[0].startswith(": read 0 of ")
    assert all(line.startswith("data: ") for line in lines if line and line not in comments)
    assert lines.index(comments[-1]) < next(at for at, line in enumerate(lines) if '"content": "' in line and at > 0)
    assert "data: [DONE]" in legacy


def test_a_terminal_shows_the_progress(model: UserModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    observer = TerminalObserver(model.tokenizer, watch=False)
    monkeypatch.setattr(observer._live, "update", lambda group: shown.append(str(group.renderables[-1])))
    observer.reading(1200, 4000)
    assert shown == ["reading 1,200 of 4,000 tokens"]


async def test_an_answer_that_is_stopped_reads_no_further_part(service: Answering, parts: list[int]) -> None:
    begun, goes_on = asyncio.Event(), threading.Event()

    class Waiting(Observer):
        def reading(self, done: int, total: int) -> None:
            begun.set()

    run = CausalLane.read

    def slow(lane: Any, row: Any, *, beside: bool) -> None:
        run(lane, row, beside=beside)
        goes_on.wait(10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLane, "read", slow)
        answer = service.start(service.request(QUESTION), "trace", Waiting())
        await begun.wait()
        answer.cancel()
        await asyncio.wait({answer})
        goes_on.set()
        for _ in range(1000):
            if service.user_model.prompt_cache.bytes:
                break
            await asyncio.sleep(0.01)
    assert service.user_model.prompt_cache.bytes, "what it read is kept for the next question"
    assert len(parts) == 1
    assert await ask(service) == await ask(service_of(model_like(service)))


async def test_a_core_that_fails_ends_the_reading_of_a_long_prompt(
    model: UserModel, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed = asyncio.Event(), threading.Event()
    read, close, loop = CausalLane.read, UserTerms.close, asyncio.get_running_loop()

    def slow(lane: Any, row: Any, *, beside: bool) -> None:
        read(lane, row, beside=beside)
        loop.call_soon_threadsafe(begun.set)
        if len(parts) == 1:
            closed.wait(5)

    def noted(terms: UserTerms) -> None:
        close(terms)
        closed.set()

    class Failing(FakeStream):
        async def logits(self, due: object) -> Any:
            await begun.wait()
            raise CoreLost("the connection broke")

    monkeypatch.setattr(CausalLane, "read", slow)
    monkeypatch.setattr(UserTerms, "close", noted)
    card = {"family": "autoregressive", "vocabulary_sha256": model.vocabulary_sha256, "max_prompt_tokens": 2000}
    config = AgentConfig(lambda_user=0.5, alpha=1.0, max_tokens=3, temperature=0)
    client = FakeClient(Failing(1), **card)
    service = Answering(config, model, client, lambda *_: (PAGE,), Crossed(memory_database(), list), Traces())
    with pytest.raises(CoreLost):
        await ask(service)
    assert len(parts) == 1


def model_like(service: Answering) -> UserModel:
    """The same model, with nothing kept."""
    from ssd2.models.predict import prompt_cache_of

    model = service.user_model
    return UserModel(model.config, model.tokenizer, model.model, prompt_cache_of(model.model, 0))


async def test_the_second_question_about_a_passage_does_not_read_it_again(service: Answering, parts: list[int]) -> None:
    await ask(service)
    whole = sum(parts)
    parts.clear()
    second = await ask(service, OTHER)
    assert sum(parts) < whole / 4
    assert second == await ask(service_of(model_like(service)), OTHER)


async def test_a_conversation_goes_on_from_what_was_read(model: UserModel, parts: list[int]) -> None:
    service = service_of(model, (), max_tokens=6)
    history = [Message("user", QUESTION * 20), Message("assistant", "Seven. " * 20)]
    first = await ask(service, OTHER, history=tuple(history))
    parts.clear()
    history += [Message("user", OTHER), Message("assistant", first)]
    await ask(service, "And the pears?", history=tuple(history))
    assert sum(parts) < 60, "the new question and what the template puts around it"


async def test_what_is_kept_is_forgotten_with_its_documents(service: Answering, tmp_path: Path) -> None:
    library = Collection(tmp_path, None)
    library.on_removal(service.forget_prompts)
    cache = service.user_model.prompt_cache
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "garden.md").write_text("Seven old apple trees.")

    async def is_forgotten(change: Any, *given: object) -> bool:
        await ask(service)
        assert cache.bytes
        change(*given)
        return not cache.bytes

    try:
        link = library.link(notes)
        assert not await is_forgotten(library.sync), "a document that comes makes nothing go"
        (notes / "garden.md").write_text("Eight old apple trees.")
        assert await is_forgotten(library.sync), "its text is another one"
        (notes / "garden.md").unlink()
        assert await is_forgotten(library.sync)
        assert await is_forgotten(library.unlink, link.id)
        upload = library.add(b"Nine pear trees.", "trees.md")
        assert await is_forgotten(library.remove, upload.id)
    finally:
        library.close()


async def test_what_is_kept_is_forgotten_with_a_conversation_a_model_and_in_time(
    service: Answering, model: UserModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: list[tuple[Any, ...]] = []

    def call_later(*given: Any) -> SimpleNamespace:
        later.append(given)
        return SimpleNamespace(cancel=lambda: None)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    now = [100.0]
    monkeypatch.setattr(prompt_cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    await ask(service)
    (first,) = [one for one in later if one[0] == KEPT_S]
    now[0] += KEPT_S - 0.5  # what was kept came half a second after the answer's end, as of one that was stopped
    first[1](*first[2:])
    assert model.prompt_cache.bytes
    now[0] += 0.5
    delay, call, *given = later[-1]
    assert delay == 0.5
    call(*given)
    assert not model.prompt_cache.bytes
    assert later[-1][1:] == (call, *given), "where nothing is left nobody looks again"
    await ask(service)
    other = UserModel.load(folder, with_weights=True)
    service.reconfigure(AgentConfig(lambda_user=1.0), other, None)
    assert not model.prompt_cache.bytes
    await ask(service)
    now[0] += KEPT_S
    first[1](*first[2:])
    assert not other.prompt_cache.bytes, "it looks at the present model"


async def test_a_model_that_was_replaced_is_not_held_until_its_prompts_would_be_forgotten(folder: Path) -> None:
    model = UserModel.load(folder, with_weights=True)
    service, network = service_of(model), weakref.ref(model.model)
    await ask(service)
    service.reconfigure(AgentConfig(lambda_user=1.0), UserModel.load(folder, with_weights=True), None)
    del model
    gc.collect()
    assert network() is None


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_what_goes_between_the_search_and_the_first_logits_is_not_kept(
    service: Answering, model: UserModel, is_replaced: bool
) -> None:
    class Removing(Observer):
        def began(self, _params: object) -> None:
            if is_replaced:
                service.reconfigure(AgentConfig(lambda_user=1.0), model_like(service), None)
            else:
                service.forget_prompts()

    await ask(service, observer=Removing())
    assert not model.prompt_cache.bytes


async def test_a_conversation_that_is_deleted_takes_along_what_was_read_for_it(service: Answering) -> None:
    history = History(memory_database())
    stores: Any = type("Stores", (), {"history": history, "answers": AnswerRecords(memory_database())})
    state = AppState(AgentConfig(), {}, AccessKeys(Path("no-folder"), KEY), service, stores, CoreLine(None))
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
        await ask(service)
        assert service.user_model.prompt_cache.bytes
        kept = history.create("trees")
        assert (await http.delete(f"/v1/conversations/{kept.id}")).status_code == 200
    assert not service.user_model.prompt_cache.bytes
