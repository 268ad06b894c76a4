"""Clients that people have already, against a running agent and core; skipped where they are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.user_agent.api.conftest import KEY, AgentProcess

MESSAGES = [{"role": "user", "content": "Where is it?"}]


def test_openai_whole_and_streamed(agent: AgentProcess) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{agent.url}/v1", api_key=KEY)
    whole = client.chat.completions.create(model="slingshot", messages=MESSAGES, seed=1)
    stream = client.chat.completions.create(
        model="slingshot", messages=MESSAGES, seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert text
    assert chunks[-1].usage == whole.usage
    assert [model.id for model in client.models.list()] == ["slingshot"]
    assert client.completions.create(model="slingshot", prompt="Where is it?", seed=1).choices[0].text == text
    own = client.chat.completions.create(
        model="slingshot", messages=MESSAGES, seed=1, extra_body={"slingshot": {"lambda_user": 1}}
    )
    assert own.slingshot["lambda_user"] == 1


async def test_openai_asynchronously(agent: AgentProcess) -> None:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=f"{agent.url}/v1", api_key=KEY) as client:
        whole = await client.chat.completions.create(model="slingshot", messages=MESSAGES, seed=1)
        stream = await client.chat.completions.create(model="slingshot", messages=MESSAGES, seed=1, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


def test_openai_raises_its_own_errors(agent: AgentProcess) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{agent.url}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="slingshot", messages=MESSAGES, n=3)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{agent.url}/v1", api_key="sk-other").models.list()


def test_langchain(agent: AgentProcess) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    model = langchain_openai.ChatOpenAI(model="slingshot", base_url=f"{agent.url}/v1", api_key=KEY, seed=1)
    whole = model.invoke("Where is it?")
    assert whole.content
    assert "".join(chunk.content for chunk in model.stream("Where is it?")) == whole.content


def test_litellm(agent: AgentProcess) -> None:
    litellm = pytest.importorskip("litellm")
    how = {"model": "openai/slingshot", "api_base": f"{agent.url}/v1", "api_key": KEY, "seed": 1}
    whole = litellm.completion(messages=MESSAGES, **how).choices[0].message.content
    assert whole
    assert "".join(
        c.choices[0].delta.content or "" for c in litellm.completion(messages=MESSAGES, stream=True, **how)
    ) == (whole)


def test_llm(agent: AgentProcess, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    model = f"- model_id: slingshot\n  model_name: slingshot\n  api_base: {agent.url}/v1\n  api_key_name: slingshot\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model)
    (tmp_path / "keys.json").write_text(f'{{"slingshot": "{KEY}"}}')
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
    for options in ((), ("--no-stream",)):
        command = [sys.executable, "-m", "llm", "-m", "slingshot", *options, "Where is it?"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.slow
def test_no_request_that_the_schema_allows_or_forbids_breaks_the_agent(agent: AgentProcess) -> None:
    """schemathesis: no 5xx that is not documented, no undocumented status or shape."""
    pytest.importorskip("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{agent.url}/openapi.json", "--checks", checks]
    command += ["--header", f"Authorization: Bearer {KEY}", "--max-examples", "4", "--seed", "1", "--no-color"]
    command += ["--exclude-path", "/v1/pairs/{name}/download"]  # which would really download
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:]


PAYLOADS = json.loads((Path(__file__).parent / "client_payloads.json").read_text())
"""Bodies in the manner of these programs, made up and not recorded from them: none runs in the suite."""


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_field_that_a_client_always_sends_is_refused(agent: AgentProcess, name: str) -> None:
    with agent.client() as http:
        answer = http.post("/v1/chat/completions", json=PAYLOADS[name])
    assert answer.status_code == 200, answer.text
    assert answer.text.endswith("data: [DONE]\n\n") == PAYLOADS[name]["stream"]
    assert "error" not in answer.text[:20]


def test_langchain_gets_its_own_errors_for_tools_and_formats(agent: AgentProcess) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    openai = pytest.importorskip("openai")
    how = {"model": "slingshot", "base_url": f"{agent.url}/v1", "api_key": KEY, "max_retries": 0}
    model = langchain_openai.ChatOpenAI(**how)

    def clock() -> str:
        """Tell the time."""
        return "noon"

    with pytest.raises(openai.BadRequestError) as refused:
        model.bind_tools([clock]).invoke("What time is it?")
    assert refused.value.param == "tools"
    schema = {"title": "place", "description": "A place.", "type": "object", "properties": {"name": {"type": "string"}}}
    for method, field in (("json_mode", "response_format"), ("function_calling", "tools")):
        with pytest.raises(openai.BadRequestError) as refused:
            model.with_structured_output(schema, method=method).invoke("Where is it?")
        assert refused.value.param == field
