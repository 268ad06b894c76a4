"""The recipes of docs/rest.md, as they stand there: what a retriever finds is read on the device and never sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.user_agent.api.conftest import KEY, AgentProcess

DOCS = Path(__file__).parents[3] / "docs/rest.md"
PASSAGE = "The spare key hangs behind the Blenkitharp clock."
QUESTION = "Where is the key?"


def recipe(name: str) -> str:
    """The code of a recipe."""
    (code,) = re.findall(rf"```python\n(# {name}:.*?)```", DOCS.read_text(), re.DOTALL)
    return code


def asked(agent: AgentProcess, name: str, retriever: Any) -> None:
    """Run a recipe, and look at what was sent."""
    names: dict[str, Any] = {"BASE_URL": f"{agent.url}/v1", "KEY": KEY, "retriever": retriever}
    exec(recipe(name), names)  # noqa: S102 - our own documentation
    with agent.client() as http:
        before = http.get("/v1/ledger/totals").json()["up"]["messages"]
        assert isinstance(names["ask"](QUESTION), str)
        latest = http.get("/v1/ledger", params={"before": 2**62, "limit": 1}).json()["data"][0]
        trace = latest["trace"]
        events = http.get(f"/v1/traces/{trace}/events").text
        assert '"private_context":"whole"' in events.replace('": "', '":"')
        lines = [json.loads(line) for line in http.get("/v1/ledger/export").text.splitlines()]
        assert http.get("/v1/ledger/totals").json()["up"]["messages"] > before
        opened = next(
            found
            for entry in http.get("/v1/ledger", params={"trace": trace, "direction": "up"}).json()["data"]
            if (found := http.get(f"/v1/ledger/{entry['seq']}").json())["message"]["kind"] == "open"
        )
    assert "".join(opened["texts"]).endswith(f"{QUESTION}<answer>")
    sent = b"".join(bytes.fromhex(line["payload"]) for line in lines if line["payload"])
    assert not any(word.encode() in sent for word in (PASSAGE, "Blenkitharp"))


def test_the_langchain_recipe_with_one_of_its_retrievers(agent: AgentProcess) -> None:
    pytest.importorskip("langchain_openai")
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Found(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            assert query == QUESTION
            return [Document(page_content=PASSAGE, metadata={"source": "clock.md"})]

    asked(agent, "LangChain", Found())


def test_the_llamaindex_recipe_with_a_stand_in_for_its_retriever(agent: AgentProcess) -> None:
    """LlamaIndex is not among the test dependencies; the stand-in has the two methods that the recipe calls."""
    pytest.importorskip("openai")
    node = SimpleNamespace(get_content=lambda: PASSAGE)
    retriever = SimpleNamespace(retrieve=lambda query: [SimpleNamespace(node=node, score=1.0)])
    asked(agent, "LlamaIndex", retriever)
