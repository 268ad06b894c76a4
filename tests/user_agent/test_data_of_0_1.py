"""Data of release 0.1, read by this one; `fixtures/data_folder_0_1/README.md` says how it was made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import run_here
from user_agent.api.app import create_app
from user_agent.config import load_config
from user_agent.serve import running_parts
from user_agent.stores import open_stores

FIXTURE = Path(__file__).parent / "fixtures/data_folder_0_1"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())
RENAMED = {"private_p": "user_p", "fused_p": "mixed_p"}
"""Probabilities of a token, which are read under the names of this release."""
PASSPHRASE = "a passphrase of 0.1"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Copy the folders; return the variables that lead to the copy."""
    for name in ("config", "data"):
        shutil.copytree(FIXTURE / name, tmp_path / name)
    for name in [name for name in os.environ if name.startswith("SLINGSHOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", PASSPHRASE)
    return dict(os.environ)


@pytest.fixture
async def http(environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Client of an agent of this release that runs on the copy."""
    async with running_parts(load_config(), "http://127.0.0.1", {}) as state:
        headers = {"authorization": f"Bearer {state.keys.client}"}
        transport = httpx.ASGITransport(create_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            yield client


async def got(http: httpx.AsyncClient, path: str) -> Any:
    return (await http.get(path)).raise_for_status().json()


def test_the_files_are_encrypted() -> None:
    kept = b"".join(file.read_bytes() for file in (FIXTURE / "data").rglob("*.sqlite"))
    assert len(kept) > 10_000
    assert not any(word in kept for word in (b"drawer", b"ferry", b"SQLite format"))


async def test_documents_are_listed_and_found(http: httpx.AsyncClient) -> None:
    documents = (await got(http, "/v1/documents"))["data"]
    assert {one["name"]: (one["state"], one["passages"], one["bytes"]) for one in documents} == {
        name: tuple(one) for name, one in EXPECTED["documents"].items()
    }
    assert [link["path"] for link in (await got(http, "/v1/documents/links"))["data"]] == ["/home/alex/notes"]
    for query, text in EXPECTED["passages"].items():
        found = (await http.post("/v1/documents/search", json={"query": query})).raise_for_status().json()["data"]
        assert text in [passage["text"] for passage in found]


async def test_conversations_are_listed_and_read(http: httpx.AsyncClient) -> None:
    listed = (await got(http, "/v1/conversations"))["data"]
    assert [one["title"] for one in listed] == [one["title"] for one in EXPECTED["conversations"]]
    for one, expected in zip(listed, EXPECTED["conversations"], strict=True):
        for token in [token for message in expected["messages"] for token in message["data"].get("tokens", [])]:
            for name in RENAMED.keys() & token.keys():
                token[RENAMED[name]] = token.pop(name)
        assert await got(http, f"/v1/conversations/{one['id']}") == expected


async def test_the_ledger_is_whole_and_says_what_was_sent(http: httpx.AsyncClient) -> None:
    expected = EXPECTED["ledger"]
    found = await got(http, "/v1/ledger/verify")
    assert found == {"entries": expected["entries"], "chain": expected["chain"], "broken_seq": None, "reason": ""}
    assert await got(http, "/v1/ledger/totals") == expected["totals"]
    entry = await got(http, f"/v1/ledger/{expected['opening']['seq']}")
    assert entry["message"]["kind"] == "open"
    assert {name: entry["message"]["fields"][name] for name in expected["opening"]["fields"]} == (
        expected["opening"]["fields"]
    )


async def test_settings_are_in_use(http: httpx.AsyncClient) -> None:
    settings = await got(http, "/v1/settings")
    assert {name: settings[name]["value"] for name in EXPECTED["settings"]} == EXPECTED["settings"]
    assert settings["steps"]["value"] != settings["steps"]["default"]


def test_the_tuned_choice_is_known(environment: dict[str, str]) -> None:
    shown = run_here("tune", "--show", "--json", environment=environment)
    (kept,) = json.loads((FIXTURE / "config/slingshot/tuned.json").read_text())
    assert json.loads(shown.stdout) == [{**kept, "constant": None}]  # 0.1 did not compare λ auto with the best constant


def test_the_key_of_the_rest_endpoint_is_the_same(environment: dict[str, str]) -> None:
    shown = run_here("config", "show", "--key", environment=environment)
    assert shown.stdout.strip() == EXPECTED["api_key"]


async def test_no_answer_of_0_1_crosses_in_a_later_turn(environment: dict[str, str]) -> None:
    """Nobody noted then which of them had crossed."""
    texts = [
        message["text"]
        for conversation in EXPECTED["conversations"]
        for message in conversation["messages"]
        if message["role"] == "assistant"
    ]
    assert texts
    for _ in range(2):  # as the stores are made, and as they are found
        with open_stores(load_config()) as stores:
            assert [stores.crossed.part_of(text) for text in texts] == [""] * len(texts)
