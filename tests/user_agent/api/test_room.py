"""What does not fit, as the REST endpoint says it; in this process, with a core that is written down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.user_agent.answering.test_service import FEW, LONG, MANY, QUESTION, answering, core
from tests.user_agent.api.conftest import KEY, asked
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.state import AppState
from user_agent.config import AgentConfig
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FOUND = [*LONG, *FEW, *MANY]


@pytest.fixture
async def http(user_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    user_model = UserModel.load(user_folder, with_weights=True)
    service = answering(user_model, FOUND, core(user_model))
    state = AppState(AgentConfig(), {}, AccessKeys(Path("no-folder"), KEY), service, None, CoreLine(None))
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        yield client


def body_of(route: str, question: str = QUESTION, **more: object) -> dict[str, object]:
    if route == CHAT:
        return asked(question, **more)
    return {"model": "slingshot", "prompt": question, **more}


async def whole(http: httpx.AsyncClient, route: str, **more: object) -> tuple[dict[str, Any], str]:
    """What is said beside the answer, and why it ended."""
    answer = (await http.post(route, json=body_of(route, **more))).json()
    said = answer["slingshot"]
    return said if route == CHAT else said[0], answer["choices"][0]["finish_reason"]


async def streamed(http: httpx.AsyncClient, route: str, **more: object) -> tuple[dict[str, Any], str]:
    response = await http.post(route, json=body_of(route, stream=True, **more))
    *_, last, done = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert done == "[DONE]"
    chunk = json.loads(last)
    return chunk["slingshot"], chunk["choices"][0]["finish_reason"]


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_a_longer_answer_than_there_is_room_for_is_clamped_and_said(
    http: httpx.AsyncClient, route: str, ask: Any
) -> None:
    for max_tokens in (65, 1_000_000):
        said, reason = await ask(http, route, max_tokens=max_tokens)
        assert (said["max_tokens"], said["clamped_from"], reason) == (64, max_tokens, "length")
        assert len(said["tokens"]) == 64
    said, _ = await ask(http, route, max_tokens=64)
    assert (said["max_tokens"], said["clamped_from"]) == (64, None)


async def test_both_names_of_the_length_are_clamped(http: httpx.AsyncClient) -> None:
    said, _ = await whole(http, CHAT, max_completion_tokens=100_000)
    assert said["clamped_from"] == 100_000


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_no_passage_that_was_found_is_dropped_in_silence(http: httpx.AsyncClient, route: str, ask: Any) -> None:
    said, _ = await ask(http, route, max_tokens=8)
    cut, *others = said["citations"]
    assert (cut["is_cut"], cut["source"], cut["line"]) == (True, "notes/visit.md", 7)
    assert cut["text"] in LONG[0].text or "4711" in cut["text"]
    assert not any(citation["is_cut"] for citation in others)
    assert len(said["citations"]) + len(said["left_out"]) == len(FOUND)
    assert {passage["source"] for passage in said["left_out"]} <= {"notes/home.md", "notes/sheds.md"}


@pytest.mark.parametrize(("route", "param"), [(CHAT, "messages"), (COMPLETIONS, "prompt")])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_question_that_does_not_fit_names_the_field_and_how_long_it_may_be(
    http: httpx.AsyncClient, route: str, param: str, is_stream: bool
) -> None:
    response = await http.post(route, json=body_of(route, "word " * 200, stream=is_stream))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"], error["limit"]) == (
        400,
        "prompt_too_long",
        param,
        96,
    )
    assert error["message"].endswith("shorten it")


async def test_the_model_says_how_much_it_reads_and_writes(http: httpx.AsyncClient) -> None:
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert (model["context_length"], model["max_output_tokens"]) == (160, 64)
    assert (await http.get("/v1/models/slingshot")).json() == model


async def test_a_search_shows_what_the_model_would_be_given_and_what_does_not_fit(http: httpx.AsyncClient) -> None:
    found = (await http.post("/v1/documents/search", json={"query": QUESTION, "limit": 100})).json()
    said, _ = await whole(http, CHAT)
    assert found["data"] == said["citations"]
    assert [{name: one[name] for name in said["left_out"][0]} for one in found["left_out"]] == said["left_out"]
    few = (await http.post("/v1/documents/search", json={"query": QUESTION, "limit": 4})).json()
    assert len(few["data"]) + len(few["left_out"]) == 4
    assert (few["more"], found["more"]) == (len(FOUND) - 4, 0), "nothing is dropped in silence"


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"core": "nowhere"}, "core", "'nowhere' is not a core's address; write HOST:PORT"),
        ({"core": "core.example.org:443"}, "ca", "the core at core.example.org:443 is on another machine"),
        ({"ca": "/nope.pem"}, "ca", "cannot use the CA certificate /nope.pem"),
        ({"lambda_user": 2}, "lambda_user", "lambda_user is 2; give a number from 0 to 1"),
    ],
)
async def test_a_setting_that_cannot_be_is_named_and_no_option_of_a_command_line_is(
    http: httpx.AsyncClient, changes: dict[str, object], param: str, says: str
) -> None:
    response = await http.patch("/v1/settings", json=changes)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(says)
    assert "--" not in error["message"]
    assert "allow" not in error["message"], "the page and REST clients cannot"
    assert (await http.get("/v1/settings")).json()[next(iter(changes))]["value"] is None, "it is not kept"
