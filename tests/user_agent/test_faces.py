"""Every field of a request in every face: option, variable, file, REST, the page's settings, help and schema."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import user_agent.commands.answering
import user_agent.stores
from ssd2.algorithm.params import RULES, Seeds
from ssd2.errors import InvalidParameter
from ssd2.models.tokenizer import Tokenizer
from tests.user_agent.answering.test_run import FakeClient, FakeStream
from user_agent.answering.request import AnswerRequest, AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.state import AppState
from user_agent.commands.app import app
from user_agent.config import CHANGEABLE, FILE, AgentConfig, load_config, save_settings
from user_agent.config import SETTINGS as AGENT_SETTINGS
from user_agent.fields import Setting, settings_of
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys
from user_agent.store.crossed import Crossed
from user_agent.store.database import memory_database

QUESTION = "Where is it?"
KEY = "sk-test"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

VALUES: dict[str, tuple[Any, str]] = {
    "lambda_user": (0.25, "0.25"),
    "alpha": (2.5, "2.5"),
    "max_tokens": (24, "24"),
    "temperature": (0.0, "0"),
    "documents": ((3, 17), "3, 17"),
    "private_context": ("I am Mallory.", "I am Mallory."),
    "pair": ("smollm2-135m", "smollm2-135m"),
    "system_prompt": ("Answer in verse.", "Answer in verse."),
    "answer_layout": ("fact-first", "fact-first"),
    "model": ("large", "large"),
    "steps": (7, "7"),
    "early_stop": (0.5, "0.5"),
    "patience": (3, "3"),
    "entropy_bound": (0.75, "0.75"),
    "schedule": ("changes", "changes"),
    "core_every": (2, "2"),
    "block_size": (4, "4"),
    "projection": ("multi-hot", "multi-hot"),
    "top_p": (0.9, "0.9"),
    "frequency_penalty": (0.5, "0.5"),
    "presence_penalty": (-1.5, "-1.5"),
    "self_conditioning": ("projection", "projection"),
    "logits": ("uint8", "uint8"),
    "speculation": (1, "1"),
    "cite": ("tokens", "tokens"),
    "stop_texts": (("END",), "END"),
    "seed": (11, "11"),
}
"""Of every field a value that is not its default, and how people type it."""

SETTINGS = settings_of(AnswerRequest)
FIELDS = pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))


class Recorder:
    """Takes requests in the place of a service, and answers none."""

    def __init__(self, config: AgentConfig) -> None:
        self.request, self.requests = config.request, []
        self.user_model = SimpleNamespace(tokenizer=SimpleNamespace(takes_conversations=False))

    def start(self, request: AnswerRequest, *_: object) -> asyncio.Task[None]:
        self.requests.append(request)
        raise InvalidParameter("recorded")


@pytest.fixture
def recorders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Recorders of all commands that are run; they find nothing of this machine's user."""
    made: list[Recorder] = []

    @asynccontextmanager
    async def opened(config: AgentConfig, *_: object) -> AsyncIterator[Recorder]:
        made.append(Recorder(config))
        yield made[-1]

    @contextmanager
    def stores(_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(documents=SimpleNamespace(search=None), history=None)

    monkeypatch.setattr(user_agent.commands.answering, "opened_answering", opened)
    monkeypatch.setattr(user_agent.stores, "open_stores", stores)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return made


def asked_by(recorders: list[Recorder], *command: str, typed: str = "") -> AnswerRequest:
    """Return the request that a command makes."""
    done = CliRunner().invoke(app, command, input=typed)
    assert recorders, done.output
    (request,) = recorders.pop().requests
    return request


async def asked_over_rest(config: AgentConfig, route: str, **body: object) -> AnswerRequest:
    recorder = Recorder(config)
    question = {"messages": [{"role": "user", "content": QUESTION}]} if route == CHAT else {"prompt": QUESTION}
    async with _client(config, recorder) as http:
        refused = await http.post(route, json={"model": "slingshot", **question, **body})
    assert "recorded" in refused.text
    (request,) = recorder.requests
    return request


def _client(config: AgentConfig, answering: Any) -> httpx.AsyncClient:
    state = AppState(config, {}, AccessKeys(Path("no-folder"), KEY), answering, None, CoreLine(None))
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


def expected(setting: Setting) -> AnswerRequest:
    return AnswerRequest(question=QUESTION, **{setting.name: VALUES[setting.name][0]})


def rest_body(setting: Setting) -> dict[str, object]:
    value = VALUES[setting.name][0]
    return {setting.face.openai: value} if setting.face.openai else {"slingshot": {setting.name: value}}


def test_every_field_but_the_question_has_a_face_and_a_value_here() -> None:
    assert SETTINGS.keys() == VALUES.keys() == AnswerRequest.model_fields.keys() - {"question", "history"}
    assert AnswerSettings.model_fields.keys() == VALUES.keys(), "they are settings of the agent too"


@FIELDS
async def test_a_field_means_the_same_by_option_variable_file_and_rest(
    setting: Setting, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = VALUES[setting.name][1]
    wanted, default = expected(setting), AnswerRequest(question=QUESTION)
    commands = {"ask": (("ask", QUESTION), ""), "chat": (("chat",), f"{QUESTION}\n")}
    for command, typed in commands.values():
        assert await asyncio.to_thread(asked_by, recorders, *command, typed=typed) == default
        options = (setting.option, text)
        assert await asyncio.to_thread(asked_by, recorders, *command, *options, typed=typed) == wanted
    with monkeypatch.context() as environment:
        environment.setenv(setting.variable, text)
        assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION) == wanted
    for route in (CHAT, COMPLETIONS):
        assert await asked_over_rest(AgentConfig(), route, **rest_body(setting)) == wanted
    if setting.name not in CHANGEABLE:
        return
    save_settings({setting.name: text})
    assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION) == wanted
    assert await asked_over_rest(load_config(), CHAT) == wanted, "what a request leaves out is as configured"


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_in_the_place_of_lambda_has_every_face(
    rule: str, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, wanted = SETTINGS["lambda_user"], AnswerRequest(question=QUESTION, lambda_user=rule)
    for option in ("--lambda", "--lambda-user"):
        assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION, option, rule) == wanted
    with monkeypatch.context() as environment:
        environment.setenv(setting.variable, rule.upper())
        assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION) == wanted
    for route in (CHAT, COMPLETIONS):
        assert await asked_over_rest(AgentConfig(), route, slingshot={"lambda_user": rule}) == wanted
    async with _client(AgentConfig(), None) as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
        page = (await http.get("/v1/settings")).json()["lambda_user"]
    number, words, _ = schemas["SlingshotOptions"]["properties"]["lambda_user"]["anyOf"]
    assert (number["minimum"], number["maximum"], words["enum"]) == (0, 1, list(RULES))
    assert (page["kind"], page["minimum"], page["maximum"], page["words"]) == ("float", 0, 1, list(RULES))
    save_settings({"lambda_user": rule})
    assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION) == wanted


async def test_what_is_neither_a_weight_nor_a_rule_is_refused_with_what_to_give(tmp_path: Path) -> None:
    wanted = "a number from 0 to 1, auto or difference"
    refused = CliRunner().invoke(app, ["ask", QUESTION, "--lambda", "automatic"])
    assert f"give {wanted}" in str(refused.exception)
    async with _client(AgentConfig(), Recorder(AgentConfig())) as http:
        for wrong in ("automatic", 2, [1]):
            body = {"model": "slingshot", "prompt": QUESTION, "slingshot": {"lambda_user": wrong}}
            error = (await http.post(COMPLETIONS, json=body)).json()["error"]
            assert error["param"].startswith("slingshot.lambda_user")


@FIELDS
async def test_precedence_is_option_then_variable_then_file(
    setting: Setting, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting.name in CHANGEABLE:
        save_settings({setting.name: VALUES[setting.name][1]})
    default = AnswerSettings.model_fields[setting.name].default
    given = {
        "lambda_user": 0.5,
        "alpha": 0.5,
        "early_stop": 0.1,
        "temperature": 0.5,
        "top_p": 0.5,
        "entropy_bound": 2,
        "logits": "float16",
        "pair": "qwen3-8b",
    }
    other = given.get(setting.name, 5 if default is None else "other" if default in ("", ()) else default)
    typed = "all" if setting.name == "documents" else str(other)
    wanted = AnswerRequest(question=QUESTION, **{setting.name: other})
    assert wanted != expected(setting)
    with monkeypatch.context() as environment:
        environment.setenv(setting.variable, typed)
        assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION) == wanted
        options = (setting.option, VALUES[setting.name][1])
        assert await asyncio.to_thread(asked_by, recorders, "ask", QUESTION, *options) == expected(setting)


@FIELDS
async def test_help_schema_and_page_say_the_same_of_a_field(setting: Setting, tmp_path: Path) -> None:
    assert setting.face.label
    assert setting.text.endswith((f"Default: {setting.default}.", "up to four."))
    for command in ("ask", "chat"):
        shown = _plain(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"}).output)
        everyday, _, advanced = shown.partition("Advanced")
        assert f"{setting.option} " in (advanced if setting.face.advanced else everyday)
        assert setting.text in shown
    async with _client(AgentConfig(), None) as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
        page = (await http.get("/v1/settings")).json().get(setting.name)
    for model in ("ChatRequest", "CompletionRequest") if setting.face.openai else ("SlingshotOptions",):
        assert schemas[model]["properties"][setting.face.openai or setting.name]["description"] == setting.text
    if setting.name not in CHANGEABLE:
        assert page is None
        return
    assert (page["help"], page["label"]) == (setting.text, setting.face.label)
    assert page["is_advanced"] == setting.face.advanced
    assert page["value"] == page["default"] == _json(setting.info.default)


def test_switches_are_on_or_off_by_default() -> None:
    assert AGENT_SETTINGS["check_reading"].text.endswith("Default: on.")
    assert AGENT_SETTINGS["insecure"].text.endswith("Default: off.")


def _plain(shown: str) -> str:
    """Help without its frame and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture
def user_model(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


@FIELDS
async def test_no_field_of_a_request_is_left_out_of_the_answer(
    setting: Setting, user_model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seeds, "fresh", lambda: Seeds(1, 2))
    monkeypatch.setattr(Tokenizer, "takes_conversations", property(lambda _: True))
    seen: list[object] = []

    async def answer(_: Agent, question: Question, observer: Any) -> None:
        seen.append((question, observer._stop))
        raise InvalidParameter("seen")

    monkeypatch.setattr(Agent, "answer", answer)
    client = FakeClient(FakeStream(8), vocabulary_sha256=user_model.vocabulary_sha256)

    def search(_: str, ids: object) -> list[object]:
        seen.append(ids)
        return []

    for value in (setting.info.default, VALUES[setting.name][0]):
        service = Answering(AgentConfig(), user_model, client, search, Crossed(memory_database(), list), Traces())
        with pytest.raises(
            InvalidParameter, match=r"seen|answers with models of no pair, not with|write token by token"
        ):
            await service.start(service.request(QUESTION, **{setting.name: value}), "trace")
    assert seen[:2] != seen[2:]


@pytest.mark.parametrize("name", ["core", "ca", "insecure", "user_model", "data_dir", "control", "docs"])
async def test_no_request_can_redirect_the_line_or_read_a_folder(name: str) -> None:
    async with _client(AgentConfig(), Recorder(AgentConfig())) as http:
        body = {"model": "slingshot", "prompt": QUESTION, "slingshot": {name: "x"}}
        refused = await http.post(COMPLETIONS, json=body)
        aside = await http.post(COMPLETIONS, json={"model": "slingshot", "prompt": QUESTION, name: "x"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, f"slingshot.{name}")
    assert "recorded" in aside.text, "beside `slingshot` it is a name that OpenAI may have, and has no effect"


def test_a_variable_that_nothing_reads_is_named_with_the_closest_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.commands import run_here

    variables = {
        "SLINGSHOT_LAMDA_USER": "0.4",
        "slingshot_steps": "3",
        "SLINGSHOT_CORE_KEY": "k",
        "SLINGSHOT_QUUX": "1",
    }
    others = {"SLINGSHOT_PROXY_PORT": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    done = run_here("config", "get", "steps", environment={**variables, **others})
    assert done.stdout == "3\n"
    first, second = done.stderr.splitlines()
    assert first.startswith("user-agent: warning: SLINGSHOT_LAMDA_USER")
    assert first.endswith("did you mean SLINGSHOT_LAMBDA_USER?")
    assert "SLINGSHOT_QUUX" in second


async def test_private_context_is_in_no_file_and_no_setting_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert set(AnswerRequest.model_fields) - set(CHANGEABLE) == {"private_context", "question", "history"}
    file = tmp_path / "slingshot" / FILE
    refused = CliRunner().invoke(app, ["config", "set", "private_context", "I am Mallory."])
    assert "private_context is never saved" in str(refused.exception)
    async with _client(AgentConfig(), Recorder(AgentConfig())) as http:
        assert (await http.patch("/v1/settings", json={"private_context": "I am Mallory."})).status_code == 400
    assert not file.exists()
    save_settings({"alpha": 2})
    file.write_text('private_context = "I am Mallory."\n')
    with pytest.raises(InvalidParameter, match=r"remove it from .*config\.toml"):
        load_config()
    save_settings({"private_context": None})
    assert load_config().private_context == ""


def test_a_file_of_an_older_release_still_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "slingshot").mkdir()
    (tmp_path / "slingshot" / FILE).write_text('core = "a:1"\nlambda_user = "0.4"\nsteps = 7\nno_longer = 1\n')
    config = load_config()
    assert (config.core, config.lambda_user, config.steps) == ("a:1", 0.4, 7)
