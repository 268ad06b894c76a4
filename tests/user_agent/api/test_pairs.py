"""/v1/pairs: what is offered, and a download that runs beside the agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from ssd2.models import pairs
from ssd2.models.pairs import EMBEDDED, pair_named
from tests.user_agent.test_faces import KEY
from user_agent.api import fetching
from user_agent.api.app import create_app
from user_agent.api.state import AppState
from user_agent.config import AgentConfig
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys

NOTES = "import os, pathlib, sys, time; work = pathlib.Path(os.environ['WORK']); "
SLOW = NOTES + "work.mkdir(parents=True); (work / 'x').write_bytes(bytes(1000)); time.sleep(60)"
DONE = NOTES + "pathlib.Path(os.environ['FOLDER']).mkdir(parents=True)"
FAILS = "import sys; sys.exit('user-agent: error: the network is down')"


@pytest.fixture
async def state() -> AsyncIterator[AppState]:
    state = AppState(AgentConfig(), {}, AccessKeys(Path("no-folder"), KEY), SimpleNamespace(), None, CoreLine(None))  # type: ignore[arg-type]
    yield state
    await state.fetching.close()


@pytest.fixture
async def http(state: AppState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("WORK", str(pairs.work_folder(pair_named(EMBEDDED).core)))
    monkeypatch.setenv("FOLDER", str(pair_named(EMBEDDED).core.folder))
    transport, headers = httpx.ASGITransport(create_app(state)), {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        yield client


async def shown(http: httpx.AsyncClient, name: str = EMBEDDED) -> dict[str, object]:
    return next(one for one in (await http.get("/v1/pairs")).json() if one["name"] == name)


async def until(http: httpx.AsyncClient, field: str, value: object) -> dict[str, object]:
    async with asyncio.timeout(20):
        while (one := await shown(http))[field] != value:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)
    return one


async def test_a_download_shows_its_progress_and_ends_with_the_agent(
    http: httpx.AsyncClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "COMMAND", (sys.executable, "-c", SLOW))
    assert not (await shown(http))["is_downloading"]
    assert (await http.post(f"/v1/pairs/{EMBEDDED}/download")).status_code == 202
    assert (await until(http, "fetched_bytes", 1000))["is_downloading"]
    assert (await http.post(f"/v1/pairs/{EMBEDDED}/download")).status_code == 202, "the same download goes on"
    another = await http.post("/v1/pairs/smollm2-1.7b/download")
    assert (another.status_code, another.json()["error"]["code"]) == (409, "download_running")
    await state.fetching.close()
    assert not (await shown(http))["is_downloading"]


async def test_a_download_that_succeeds_is_there_and_one_that_fails_says_why(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "COMMAND", (sys.executable, "-c", FAILS))
    await http.post(f"/v1/pairs/{EMBEDDED}/download")
    failed = await until(http, "error", "the network is down")
    assert (failed["is_downloading"], failed["is_downloaded"]) == (False, False)
    monkeypatch.setattr(fetching, "COMMAND", (sys.executable, "-c", DONE))
    await http.post(f"/v1/pairs/{EMBEDDED}/download")
    assert (await until(http, "is_downloaded", True))["error"] is None


async def test_a_pair_is_offered_only_where_memory_allows(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest pair loads no core, as its own λ is 1."""
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    for kilobytes, offered in (
        (900_000, []),
        (1_100_000, [EMBEDDED]),
        (3_000_000, [EMBEDDED]),
        (64_000_000, [EMBEDDED, "qwen2.5-coder-1.5b"]),
    ):
        (tmp_path / "meminfo").write_text(f"MemAvailable: {kilobytes} kB\n")
        assert [one["name"] for one in (await http.get("/v1/pairs")).json() if one["is_offered"]] == offered


async def test_a_pair_is_offered_only_where_its_download_has_room(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 64000000 kB\n")
    monkeypatch.setattr(pairs, "MEMORY_FILE", tmp_path / "meminfo")
    for free, offered in ((10**8, []), (10**9, [EMBEDDED]), (10**11, [EMBEDDED, "qwen2.5-coder-1.5b"])):
        monkeypatch.setattr(
            pairs, "shutil", SimpleNamespace(disk_usage=lambda _, free=free: SimpleNamespace(free=free))
        )
        assert [one["name"] for one in (await http.get("/v1/pairs")).json() if one["is_offered"]] == offered


@pytest.mark.parametrize(("name", "says"), [("llama3-8b", "terminal"), ("none", "there is no pair")])
async def test_a_gated_or_unknown_pair_is_not_downloaded_here(http: httpx.AsyncClient, name: str, says: str) -> None:
    refused = await http.post(f"/v1/pairs/{name}/download")
    assert refused.status_code == 400
    assert says in refused.json()["error"]["message"]
