"""A message with passages in it, at each of the guard's settings."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.user_agent.answering.rag_prompts import REPORTED_ON
from tests.user_agent.api.conftest import asked
from user_agent.answering.stuffed_prompt import is_stuffed

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
STUFFED = "Context:\n" + "The key is in the drawer, and the bin is green. " * 3 + "\nQuestion: Where?\nAnswer:"
assert is_stuffed(STUFFED)
assert any(is_stuffed(prompt.text) for prompt in REPORTED_ON)
SHORT = {"max_tokens": 8}


@pytest.fixture
def refusing(http: httpx.Client) -> Iterator[httpx.Client]:
    http.patch("/v1/settings", json={"stuffed_prompts": "refuse"}).raise_for_status()
    yield http
    http.patch("/v1/settings", json={"stuffed_prompts": None}).raise_for_status()


def up(http: httpx.Client) -> int:
    return http.get("/v1/ledger/totals").json()["up"]["messages"]


def test_a_stuffed_message_is_answered_with_a_warning(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=asked(STUFFED, **SHORT))
    assert (answer.status_code, answer.headers["x-slingshot-warning"]) == (200, "stuffed_prompt")
    (warning,) = answer.json()["slingshot"]["warnings"]
    assert (warning["code"], warning["param"]) == ("stuffed_prompt", "messages")
    assert "slingshot.private" in warning["message"]
    streamed = http.post(CHAT, json=asked(STUFFED, stream=True, **SHORT))
    assert streamed.headers["x-slingshot-warning"] == "stuffed_prompt"
    assert '"warnings": [{"code": "stuffed_prompt"' in streamed.text
    prompt = {"model": "slingshot", "prompt": ["Where?", STUFFED], **SHORT}
    both = http.post(COMPLETIONS, json=prompt).json()["slingshot"]
    assert [len(one["warnings"]) for one in both] == [0, 1]


def test_an_ordinary_question_and_a_private_passage_bring_no_warning(http: httpx.Client) -> None:
    for body in (asked(**SHORT), asked(slingshot={"private": STUFFED}, **SHORT)):
        answer = http.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["slingshot"]["warnings"]) == (200, [])
        assert "x-slingshot-warning" not in answer.headers


def test_a_refused_message_sends_nothing(refusing: httpx.Client) -> None:
    before = up(refusing)
    earlier = [{"role": "user", "content": STUFFED}, {"role": "assistant", "content": "There."}]
    for route, body, field in (
        (CHAT, asked(STUFFED), "messages"),
        (CHAT, asked(STUFFED, stream=True), "messages"),
        (CHAT, asked(messages=[{"role": "system", "content": STUFFED}, *asked()["messages"]]), "messages"),
        (CHAT, asked(messages=[*earlier, *asked()["messages"]]), "messages"),
        (COMPLETIONS, {"model": "slingshot", "prompt": STUFFED}, "prompt"),
    ):
        error = refusing.post(route, json=body)
        assert (error.status_code, error.json()["error"]["code"]) == (400, "stuffed_prompt")
        assert error.json()["error"]["param"] == field
    assert up(refusing) == before
    assert refusing.post(CHAT, json=asked(**SHORT)).status_code == 200


def test_a_message_that_repeats_the_private_text_is_refused(refusing: httpx.Client) -> None:
    text = "the deposit of 1,850 crowns is returned within six weeks after the keys were handed over"
    private = {"private": text, "lambda_user": 0.5}
    assert refusing.post(CHAT, json=asked(f"Is {text}?", slingshot=private, **SHORT)).status_code == 400
    assert refusing.post(CHAT, json=asked("Is the deposit returned?", slingshot=private, **SHORT)).status_code == 200


def test_what_stays_on_the_device_is_not_looked_at(refusing: httpx.Client) -> None:
    """At λ = 1 nothing is sent."""
    assert refusing.post(CHAT, json=asked(STUFFED, slingshot={"lambda_user": 1}, **SHORT)).status_code == 200


def test_a_client_cannot_turn_the_guard_off(refusing: httpx.Client) -> None:
    answer = refusing.post(CHAT, json=asked(STUFFED, slingshot={"stuffed_prompts": "allow"}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "slingshot.stuffed_prompts")
