"""A link is checked behind its reading, the page sees how far it is, and nothing leaves the device for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ssd2.demo.paths import EVERYDAY, NOTES, USER
from ssd2.models import pairs
from ssd2.models.pairs import EMBEDDED, Pair, pair_named
from user_agent.answering.reading_check import ReadingCheck
from user_agent.api.app import create_app
from user_agent.api.reading import LinkChecks
from user_agent.api.state import AppState
from user_agent.config import load_config
from user_agent.serve import running_parts

ALONE = {"lambda_user": 1.0}
"""Without a core: what the check needs."""


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AppState]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "for tests")
    async with running_parts(load_config(**ALONE), "http://127.0.0.1", ALONE) as state:
        yield state


@pytest.fixture
async def http(state: AppState) -> AsyncIterator[httpx.AsyncClient]:
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {state.keys.page}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        yield client


async def linked(http: httpx.AsyncClient, path: Path) -> Any:
    return (await http.post("/v1/documents/links", json={"path": str(path)})).raise_for_status().json()


async def links(http: httpx.AsyncClient) -> list[Any]:
    """All links, once none is being checked."""
    async with asyncio.timeout(60):
        while True:
            found: list[Any] = (await http.get("/v1/documents/links")).json()["data"]
            if all(link["check"] is None or link["check"]["state"] == "done" for link in found):
                return found
            await asyncio.sleep(0.05)


async def test_a_link_says_whether_the_models_can_read_it_and_nothing_leaves_for_it(
    http: httpx.AsyncClient, state: AppState
) -> None:
    before = await linked(http, EVERYDAY)
    assert before["check"]["state"] in ("waiting", "running")
    assert before["check"]["can_read"] is None
    await linked(http, NOTES)
    english, town = [link["check"] for link in await links(http)]
    assert (english["can_read"], english["right"], town["can_read"]) == (False, 0, True)
    assert english["says"].startswith("The demo's models answered 0 of")
    assert list(state.stores.ledger.entries()) == []


async def test_another_pair_checks_again_and_unlinks_the_sample_notes(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (EVERYDAY, NOTES):
        await linked(http, folder)
    await links(http)
    model = replace(pair_named(EMBEDDED).core, repository="maker/tiny", parameters=1000)
    monkeypatch.setattr(pairs, "PAIRS", (Pair("tiny", model, model, "tests"),))
    model.folder.parent.mkdir(parents=True)
    model.folder.symlink_to(USER)
    (await http.patch("/v1/settings", json={"pair": "tiny"})).raise_for_status()
    (left,) = await links(http)
    assert left["path"] == str(EVERYDAY)
    assert left["check"]["models"] == "tiny"
    assert (left["check"]["state"], left["check"]["can_read"]) == ("done", False)


async def test_a_link_is_kept_whatever_its_check_comes_to(http: httpx.AsyncClient, state: AppState) -> None:
    (state.config.data_dir / "empty").mkdir()
    await linked(http, state.config.data_dir / "empty")
    (empty,) = await links(http)
    assert (empty["check"]["questions"], empty["check"]["can_read"]) == (0, None)


async def test_a_check_that_fails_says_so_and_the_next_link_is_checked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[str] = []

    def check(user_model: object, passages: object, goes_on: object, *, system_prompt: str) -> ReadingCheck:
        asked.append(system_prompt)
        if len(asked) == 1:
            raise RuntimeError("out of memory")
        return ReadingCheck(3, 3)

    library, user_model = SimpleNamespace(sync=lambda: None, sample=lambda _: []), SimpleNamespace(model="network")
    checks = LinkChecks(check)
    checks.begin([1, 2], library, user_model, "Tiny", "Be brief.")  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await asyncio.wait({checks._running})
    failed, done = checks.of(1), checks.of(2)
    assert (failed.state, failed.says) == (
        "done",
        "Tiny could not be checked on these documents: the check failed; see the agent's log",
    )
    assert "RuntimeError: out of memory" in caplog.text
    assert (done.state, done.found) == ("done", ReadingCheck(3, 3))
    assert failed.user_model is done.user_model is None, "else a model that was replaced stays in memory"
    assert asked == ["Be brief."] * 2


async def test_a_link_is_checked_with_the_configured_system_prompt(
    state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.config = state.config.model_copy(update={"system_prompt": "Be brief."})
    begun: list[object] = []
    monkeypatch.setattr(LinkChecks, "begin", lambda *given: begun.append(given[-1]))
    state.check_links(1)
    assert begun == ["Be brief."]


async def test_the_check_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "for tests")
    off = {**ALONE, "check_reading": False}
    async with running_parts(load_config(**off), "http://127.0.0.1", off) as state:
        link = state.stores.documents.link(EVERYDAY)
        state.check_links(link.id)
        assert state.checks.of(link.id) is None
