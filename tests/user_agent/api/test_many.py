"""Many who ask at a time, and those who go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import CoreProcess, running_core
from tests.user_agent.api.conftest import KEY, AgentProcess, asked, running_agent

CHAT = "/v1/chat/completions"
FREED_WITHIN_S = 2.0
SLOW = {"steps": 40}
"""Timesteps of an answer that takes longer than a busy machine needs to take in 50 requests."""


@pytest.fixture(scope="module")
def small_core(core_folder: Path) -> Iterator[CoreProcess]:
    """One session at a time."""
    with running_core(core_folder, "--max-sessions", "1") as running:
        yield running


@pytest.fixture(scope="module")
def small_agent(
    small_core: CoreProcess, user_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    """One answer at a time, and room for 20 that wait."""
    home, limits = tmp_path_factory.mktemp("home"), {"max_answers": 1, "max_waiting": 20}
    with running_agent(home, "--core", small_core.address, user_model=user_folder, **limits) as running:
        yield running


def client(agent: AgentProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=agent.url, headers={"authorization": f"Bearer {KEY}"}, timeout=120, limits=limits)


async def stream(http: httpx.AsyncClient, **changes: object) -> tuple[int, str, str | None]:
    async with http.stream("POST", CHAT, json=asked(stream=True, **changes)) as response:
        text = (await response.aread()).decode()
        return response.status_code, text, response.headers.get("retry-after")


async def test_of_50_at_a_time_each_is_answered_or_told_when_to_come_again(small_agent: AgentProcess) -> None:
    async with client(small_agent) as http:
        answers = await asyncio.gather(*(stream(http, max_tokens=8, slingshot=SLOW) for _ in range(50)))
        done = [text for status, text, _ in answers if status == 200]
        refused = [(status, again) for status, _, again in answers if status != 200]
        assert 21 <= len(done) < 50, "one is answered and 20 wait; on a busy machine some end before all have come"
        assert all(text.endswith("data: [DONE]\n\n") for text in done)
        assert set(refused) == {(429, "2")}
        assert (await stream(http, max_tokens=8))[0] == 200, "and there is room again"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_who_goes_away_frees_the_core(small_agent: AgentProcess, is_stream: bool) -> None:
    """The core has one session: the next answer begins as soon as the one that nobody waits for has ended."""
    async with client(small_agent) as http:
        long = asked(stream=is_stream, max_tokens=48, temperature=2, top_p=1, slingshot={"steps": 600})
        asking = asyncio.create_task(http.post(CHAT, json=long))
        await asyncio.sleep(1.0)
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        left = time.monotonic()
        status, _, _ = await stream(http, max_tokens=8, slingshot={"steps": 1})
        assert status == 200
        assert time.monotonic() - left < FREED_WITHIN_S
        assert 'slingshot_answers_total{end="stopped"} ' in (await http.get("/metrics")).text, "it had not just ended"


async def test_a_core_that_is_gone_is_an_error_that_says_so_also_in_mid_stream(
    core_folder: Path, user_folder: Path, tmp_path: Path
) -> None:
    with (
        running_core(core_folder) as core,
        running_agent(tmp_path, "--core", core.address, user_model=user_folder, timeout=3) as agent,
    ):
        async with client(agent) as http:
            assert (await http.get("/ready")).json()["status"] == "ready"
            async with http.stream(
                "POST", CHAT, json=asked(stream=True, max_tokens=48, temperature=2, top_p=1, slingshot={"steps": 600})
            ) as response:
                lines = response.aiter_lines()
                assert "assistant" in await anext(lines)
                core.process.kill()
                rest = [line async for line in lines if line]
            assert '"code": "core_lost"' in rest[-1], "an error, and no [DONE]"
            later = await http.post(CHAT, json=asked())
            assert (later.status_code, later.json()["error"]["code"]) == (503, "core_unavailable")
            ready = await http.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "no core")
