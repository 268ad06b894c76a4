"""OpenAI's routes, to the letter."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.user_agent.api.conftest import AgentProcess, asked
from user_agent.api.generation import settled

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def chunks(response: httpx.Response) -> list[dict]:
    lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_whole_answer(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=asked(seed=1)).json()
    (choice,) = answer["choices"]
    assert (answer["object"], choice["message"]["role"], choice["index"]) == ("chat.completion", "assistant", 0)
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == len(answer["slingshot"]["tokens"]) == 16
    assert http.post(CHAT, json=asked(seed=1)).json()["choices"] == answer["choices"], "a seed repeats an answer"
    assert http.post(CHAT, json=asked()).json()["choices"] != answer["choices"]


def test_a_stream_has_the_whole_answer_s_text_in_the_order_that_clients_read(http: httpx.Client) -> None:
    whole = http.post(CHAT, json=asked(seed=1)).json()
    with http.stream("POST", CHAT, json=asked(seed=1, stream=True, stream_options={"include_usage": True})) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        first, *texts, end, usage = chunks(response)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(texts) == 2, "a chunk for each block"
    assert (
        "".join(chunk["choices"][0]["delta"]["content"] for chunk in texts) == whole["choices"][0]["message"]["content"]
    )
    assert {chunk["choices"][0]["finish_reason"] for chunk in (first, *texts)} == {None}
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "length")
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({(c["id"], c["created"], c["object"], c["model"]) for c in (first, *texts, end, usage)}) == 1
    assert end["slingshot"]["tokens"] == whole["slingshot"]["tokens"]


def test_text_to_stop_at_ends_an_answer_early_and_is_left_out(http: httpx.Client) -> None:
    whole = http.post(CHAT, json=asked(seed=1)).json()["choices"][0]["message"]["content"]
    stop = whole[5:9]
    answer = http.post(CHAT, json=asked(seed=1, stop=["never so", stop])).json()
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": whole[: whole.find(stop)].rstrip(), "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"]["completion_tokens"] == 8, "no block behind it was computed"
    with http.stream("POST", CHAT, json=asked(seed=1, stop=stop, stream=True)) as response:
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks(response))
    assert text == answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("text", "stop", "given_out"),
    [
        ("one two", [], "one two"),
        ("one tw\ufffd", [], "one tw"),
        ("one two", ["oxen"], "one tw"),
        ("abab", ["abac"], "ab"),
    ],
)
def test_what_may_yet_become_a_text_to_stop_at_is_held_back(text: str, stop: list[str], given_out: str) -> None:
    assert text[: settled(text, stop)] == given_out


def test_a_temperature_of_0_is_greedy_and_a_high_one_is_not(http: httpx.Client) -> None:
    cold = [http.post(CHAT, json=asked(seed=n, temperature=0, max_tokens=8)).json() for n in (1, 1)]
    assert cold[0]["choices"] == cold[1]["choices"]
    warm = http.post(CHAT, json=asked(seed=1, temperature=2, top_p=1, max_tokens=8)).json()
    assert warm["choices"] != http.post(CHAT, json=asked(seed=1, top_p=1, max_tokens=8)).json()["choices"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logit_bias", {"5": 1}),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("presence_penalty", 0.5),
        ("temperature", 3),
        ("top_p", 0),
        ("stop", ["a"] * 5),
        ("max_tokens", 0),
        ("stream_options", {"include_usage": True}),
        ("slingshot", {"lambda_user": 2}),
        ("messages", []),
        ("messages", [{"role": "assistant", "content": "hello"}]),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(http: httpx.Client, field: str, value: object) -> None:
    response = http.post(CHAT, json=asked(**{field: value}))
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"].split(".")[0] == field
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)


@pytest.mark.parametrize("is_stream", [True, False])
def test_what_the_models_cannot_do_is_refused_before_a_stream_begins(http: httpx.Client, is_stream: bool) -> None:
    """600 timesteps lie above 0.4T, and the prompt of these models is short."""
    for body in (asked(slingshot={"steps": 601}), asked("word " * 200), asked(slingshot={"logits": "top-k:x"})):
        response = http.post(CHAT, json={**body, "stream": is_stream})
        assert response.status_code == 400
        assert response.json()["error"]["code"] in ("invalid_parameter", "prompt_too_long", "invalid_value")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 1),
        ("tools", []),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("user", "me"),
        ("store", True),
    ],
)
def test_values_that_ask_for_nothing_are_taken(http: httpx.Client, field: str, value: object) -> None:
    response = http.post(CHAT, json=asked(max_tokens=8, **{field: value}))
    assert (response.status_code, response.headers["x-slingshot-ignored"]) == (200, "")


def test_what_is_ignored_is_named_in_a_header(http: httpx.Client) -> None:
    history = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
    ]
    response = http.post(CHAT, json=asked(messages=history, reasoning_effort="low", max_tokens=8))
    assert response.headers["x-slingshot-ignored"] == "reasoning_effort, messages before the last"


@pytest.mark.parametrize(("name", "shown"), [("a\r\nset-cookie: b", "a%0D%0Aset-cookie%3A b"), ("ü", "%C3%BC")])
def test_a_name_that_is_ignored_cannot_write_a_header(http: httpx.Client, name: str, shown: str) -> None:
    for is_stream in (False, True):
        response = http.post(CHAT, json=asked(max_tokens=8, stream=is_stream, **{name: 1}))
        assert (response.status_code, response.headers["x-slingshot-ignored"]) == (200, shown)
        assert "set-cookie" not in response.headers


def test_two_lengths_that_differ_are_refused(http: httpx.Client) -> None:
    assert http.post(CHAT, json=asked(max_tokens=8, max_completion_tokens=8)).status_code == 200
    refused = http.post(CHAT, json=asked(max_tokens=8, max_completion_tokens=16))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_completion_tokens")


def test_the_models(http: httpx.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert http.get(f"/v1/models/{model['id']}").json() == model
    for missing in (http.get("/v1/models/gpt-4"), http.post(CHAT, json=asked(model="gpt-4"))):
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_completions_take_texts_and_token_ids(http: httpx.Client) -> None:
    body = {"model": "slingshot", "seed": 1, "max_tokens": 8}
    chat = http.post(CHAT, json=asked("Where?", seed=1, max_tokens=8)).json()["choices"][0]["message"]["content"]
    one = http.post(COMPLETIONS, json={**body, "prompt": "Where?"}).json()
    assert (one["object"], one["choices"][0]["text"]) == ("text_completion", chat)
    two = http.post(COMPLETIONS, json={**body, "prompt": ["Where?", "Who?"]}).json()
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["choices"][0]["text"] == chat
    token_ids = [40, 41, 42]
    assert http.post(COMPLETIONS, json={**body, "prompt": token_ids}).status_code == 200
    assert len(http.post(COMPLETIONS, json={**body, "prompt": [token_ids, token_ids]}).json()["choices"]) == 2
    with http.stream("POST", COMPLETIONS, json={**body, "prompt": "Where?", "stream": True}) as response:
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks(response)) == chat


@pytest.mark.parametrize("prompt", ["", [], [[]], [99_999], [-1], ["a"] * 17])
def test_prompts_that_are_none_are_refused(http: httpx.Client, prompt: object) -> None:
    response = http.post(COMPLETIONS, json={"model": "slingshot", "prompt": prompt})
    assert (response.status_code, response.json()["error"]["param"].split(".")[0]) == (400, "prompt")


def test_the_agent_s_own_parameters_choose_the_models(http: httpx.Client) -> None:
    """At λ = 1 the core is not asked at all."""
    alone = http.post(CHAT, json=asked(slingshot={"lambda_user": 1}, max_tokens=8)).json()["slingshot"]
    assert (alone["lambda_user"], alone["figures"]["bytes_up"], alone["figures"]["round_trips"]) == (1, 0, 0)
    core = http.post(CHAT, json=asked(slingshot={"lambda_user": 0, "steps": 2}, max_tokens=8)).json()["slingshot"]
    assert {token["user_p"] for token in core["tokens"]} == {None}
    assert core["figures"]["timesteps"] == 2


def test_the_trace_of_an_answer_can_be_followed_again_from_any_event(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=asked(seed=1)).json()["slingshot"]
    route = f"/v1/traces/{answer['trace']}/events"

    def events(**headers: str) -> list[tuple[int, str, dict]]:
        blocks = [block.splitlines() for block in http.get(route, headers=headers).text.strip().split("\n\n")]
        fields = [dict(line.split(": ", 1) for line in block) for block in blocks]
        return [(int(one["id"]), one["event"], json.loads(one["data"])) for one in fields]

    seen = events()
    assert [number for number, *_ in seen] == list(range(1, len(seen) + 1))
    assert (seen[0][1], seen[-1][1]) == ("answer.start", "answer.end")
    tokens = [data["text"] for _, kind, data in seen if kind == "token.final"]
    assert tokens == [token["text"] for token in answer["tokens"]]
    steps = [data for _, kind, data in seen if kind == "denoise.step"]
    assert [(data["block"], data["step"]) for data in steps[:2]] == [(0, 0), (0, 1)]
    assert len(steps[0]["changed"]) == 8, "all positions of a block are new at first"
    assert events(**{"last-event-id": "3"}) == seen[3:]
    assert http.get("/v1/traces/none/events").status_code == 404


def test_nobody_is_answered_without_the_key(agent: AgentProcess) -> None:
    for key in (None, "sk-other"):
        with agent.client(key) as client:
            for response in (
                client.get("/v1/models"),
                client.post(CHAT, json=asked()),
                client.get("/v1/traces/x/events"),
            ):
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get("/health").status_code == 200


def test_another_host_s_name_is_refused(http: httpx.Client) -> None:
    """A page of another host whose name leads here (DNS rebinding) gets nothing."""
    for host in ("evil.example", "evil.example:8642", "localhost.evil.example", "[::2]", ""):
        refused = http.get("/v1/models", headers={"host": host})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("host_not_trusted", "trusted_hosts")
        assert "trusted_hosts" in error["message"]
        assert refused.headers["x-request-id"]
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8642", "[::1]:8642"):
        assert http.get("/v1/models", headers={"host": host}).status_code == 200


def test_a_page_of_another_origin_is_not_let_in(http: httpx.Client) -> None:
    assert "access-control-allow-origin" not in http.get("/health", headers={"origin": "http://evil.example"}).headers
    asks = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    refused = http.options("/v1/chat/completions", headers=asks)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "cors_origins")
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"\xff", b'{"model": "slingshot"}'])
def test_bodies_that_are_none_are_refused_in_the_same_shape(http: httpx.Client, body: bytes) -> None:
    response = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_every_answer_has_an_id_and_nothing_is_loaded_from_elsewhere(http: httpx.Client) -> None:
    response = http.get("/openapi.json")
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert http.get("/docs").status_code == http.get("/redoc").status_code == 404
