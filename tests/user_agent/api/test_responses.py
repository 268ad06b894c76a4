"""/v1/responses: the same answers as over chat, and nothing that would need a state."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.user_agent.api.conftest import KEY, AgentProcess, asked

ROUTE = "/v1/responses"


def body(said: Any = "Where is it?", **changes: object) -> dict[str, object]:
    return {"model": "slingshot", "input": said, "max_output_tokens": 8, **changes}


@pytest.fixture
def text(http: httpx.Client) -> str:
    """What chat answers."""
    answer = http.post("/v1/chat/completions", json=asked(max_tokens=8, seed=1, temperature=0)).json()
    return answer["choices"][0]["message"]["content"]


def test_openai_reads_a_response_whole_and_streamed(agent: AgentProcess, text: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{agent.url}/v1", api_key=KEY, max_retries=0)
    given = {
        "model": "slingshot",
        "input": "Where is it?",
        "max_output_tokens": 8,
        "temperature": 0,
        "extra_body": {"seed": 1},
    }
    whole = client.responses.create(**given)
    assert (whole.output_text, whole.status) == (text, "incomplete")
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.usage.output_tokens == 8
    events = list(client.responses.create(**given, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert [event.type for event in events if "delta" not in event.type] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert events[-1].response.output_text == text
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**given, previous_response_id=whole.id)
    assert refused.value.param == "previous_response_id"


def test_messages_instructions_and_a_private_text_are_taken(http: httpx.Client) -> None:
    parts = [
        {"role": "user", "content": "Who?"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Ada."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]},
    ]
    options = {"private": "It is in the drawer."}
    answer = http.post(ROUTE, json=body(parts, instructions="Be brief.", slingshot=options, reasoning={}))
    assert answer.status_code == 200
    assert answer.headers["x-slingshot-ignored"] == "reasoning, messages before the last"
    assert answer.json()["slingshot"]["private_context"] == "whole"
    assert answer.json()["store"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("text", {"format": {"type": "json_object"}}),
        ("max_output_tokens", 0),
        ("input", []),
        ("input", [{"role": "assistant", "content": "Hello."}]),
        ("input", " "),
        ("model", "gpt-4"),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_what_cannot_be_done_is_refused_by_its_name(
    http: httpx.Client, field: str, value: object, is_stream: bool
) -> None:
    refused = http.post(ROUTE, json={**body(stream=is_stream), field: value})
    assert refused.status_code == (404 if field == "model" else 400)
    assert refused.json()["error"]["param"].startswith(field)


def test_a_question_without_room_names_the_input(http: httpx.Client) -> None:
    error = http.post(ROUTE, json=body("word " * 200)).json()["error"]
    assert (error["code"], error["param"]) == ("prompt_too_long", "input")
    stuffed = "Context:\n" + "The key is in the drawer, and the bin is green. " * 3 + "\nQuestion: Where?"
    assert http.post(ROUTE, json=body(stuffed)).headers["x-slingshot-warning"] == "stuffed_prompt"


def test_fields_that_ask_for_nothing_are_taken(http: httpx.Client) -> None:
    more = {"store": True, "tools": [], "tool_choice": "auto", "metadata": {}, "user": "me", "truncation": "auto"}
    answer = http.post(ROUTE, json=body(text={"format": {"type": "text"}}, include=None, background=False, **more))
    assert (answer.status_code, answer.headers["x-slingshot-ignored"]) == (200, "")
    assert json.loads(answer.text)["output"][0]["content"][0]["type"] == "output_text"


def test_the_largest_inputs_that_the_schema_allows_are_answered_or_refused(http: httpx.Client) -> None:
    many = [{"role": "user", "content": "a"}] * 999
    long = [{"role": "user", "content": [{"type": "input_text", "text": "a" * 60_000}] * 2}]
    assert http.post(ROUTE, json=body(many, instructions="Be brief.")).status_code == 200
    assert http.post(ROUTE, json=body(many * 2)).status_code == 400
    assert http.post(ROUTE, json=body(long)).json()["error"]["code"] == "prompt_too_long"
