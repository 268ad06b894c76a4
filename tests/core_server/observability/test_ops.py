"""/health, /ready and /metrics in every phase of a server's life."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines, running_engines
from core_server.frontend.server import CoreServer, serve
from core_server.observability import readiness as readiness_module
from core_server.observability.observation import Observation
from core_server.observability.ops import BACKLOG, create_app, listening_socket, serving_ops
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import InvalidParameter
from tests.core_server.conftest import Start, eventually, open_request
from tests.end_to_end.processes import children
from tests.nagle import sends_at_once

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)


@asynccontextmanager
async def asking(observation: Observation) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(observation))
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as client:
        yield client


async def is_ready(client: httpx.AsyncClient) -> tuple[int, str | None]:
    answer = await client.get("/ready")
    return answer.status_code, answer.json()["reason"]


async def test_a_server_that_loads_is_healthy_and_not_ready() -> None:
    async with asking(Observation()) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert await is_ready(client) == (503, "loading")
        assert "slingshot_core_ready 0.0" in (await client.get("/metrics")).text


async def test_a_server_is_ready_until_it_drains(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served, grace_s=10.0)
    async with asking(server.observation) as client:
        assert await is_ready(client) == (200, None)
        call, _ = await agent.open(open_request(served, PARAMS))
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        assert await is_ready(client) == (503, "draining")
        assert (await client.get("/health")).status_code == 200
        metrics = await client.get("/metrics")
        assert "slingshot_core_sessions_active 1.0" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain; version=")
        call.cancel()
        await stopping


async def test_a_server_whose_engine_is_killed_is_not_ready(core_folder: Path) -> None:
    others = set(children(os.getpid()))
    async with running_engines(ServerConfig({"core": core_folder}, threads=1)) as engines:
        server = CoreServer(engines, ServerConfig({}, grace_s=0.0))
        await server.start()
        async with asking(server.observation) as client:
            assert await is_ready(client) == (200, None)
            (engine,) = set(children(os.getpid())) - others
            os.kill(engine, signal.SIGKILL)
            async with asyncio.timeout(10):
                await engines.gone()
            assert await is_ready(client) == (503, "an engine has ended")
        await server.stop()


async def test_an_engine_that_says_nothing_is_not_ready(
    served: LoadedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = await start(served)
    monkeypatch.setattr(readiness_module, "MAX_SILENCE_S", -1.0)
    async with asking(server.observation) as client:
        assert await is_ready(client) == (503, "an engine has been silent for 0 s")


@pytest.mark.parametrize(
    ("silences", "is_gone", "status", "reason"),
    [
        ((0.1, 11.0), (False, False), 200, "degraded: 1 of 2 engines silent"),
        ((0.1, 0.1), (True, False), 200, "degraded: 1 of 2 engines ended, 0 given up"),
        ((0.1, 11.0), (True, False), 503, "an engine has been silent for 11 s"),
        ((12.0, 11.0), (False, False), 503, "an engine has been silent for 11 s"),
        ((0.1, 0.1), (True, True), 503, "an engine has ended"),
    ],
)
async def test_one_engine_that_can_take_an_answer_is_enough(
    silences: tuple[float, ...], is_gone: tuple[bool, ...], status: int, reason: str
) -> None:
    observation = Observation()
    observation.readiness.engines = Engines(
        [
            SimpleNamespace(is_gone=g, silence_s=s, models=(), broken_models=set(), alive=None)
            for s, g in zip(silences, is_gone, strict=True)
        ]  # type: ignore[misc]
    )
    async with asking(observation) as client:
        assert await is_ready(client) == (status, reason)


async def test_a_port_in_use_is_refused() -> None:
    async with serving_ops("127.0.0.1", 0, Observation()) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(InvalidParameter, match="choose another port"):
            async with serving_ops("127.0.0.1", port, Observation()):
                pass


async def test_a_small_answer_leaves_without_waiting_for_more() -> None:
    with listening_socket("127.0.0.1", 0) as listening:
        assert await sends_at_once(listening)


def without_descriptors(patched: pytest.MonkeyPatch, port: int) -> None:
    """Have a port's connections fail as they do in a process that has no file descriptors left."""
    accept = socket.socket.accept

    def fail(listening: socket.socket) -> object:
        if listening.getsockname()[1] == port:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listening)

    patched.setattr(socket.socket, "accept", fail)


async def test_without_file_descriptors_the_ops_port_is_quiet_and_then_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failures() -> int:
        return caplog.text.count("out of system resource")

    async with serving_ops("127.0.0.1", 0, Observation()) as address, asyncio.timeout(30):
        host, _, port = address.rpartition(":")
        sockets = [socket.socket() for _ in range(8)]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://{address}/health")).status_code == 200
            with monkeypatch.context() as patched:
                without_descriptors(patched, int(port))
                for one in sockets:
                    one.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(one, (host, int(port)))
                await eventually(lambda: failures() > 0)
                assert failures() <= BACKLOG
            for one in sockets:
                one.close()
            assert (await client.get(f"http://{address}/health", headers={"connection": "close"})).status_code == 200
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://{address}/health")).status_code == 200


async def test_signals_stay_the_servers_own() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving_ops("127.0.0.1", 0, Observation()) as address:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(f"http://{address}/health")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_there_are_no_pages_with_scripts_of_others(path: str) -> None:
    async with asking(Observation()) as client:
        assert (await client.get(path)).status_code == 404


async def test_the_ops_port_is_there_from_before_the_models_until_after_the_server(core_folder: Path) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    config = ServerConfig({"core": core_folder}, threads=1, ops_port=0)
    serving = asyncio.create_task(serve(config, lines.put_nowait))
    url = (await lines.get()).rpartition(" ")[2]
    async with httpx.AsyncClient(trust_env=False) as client:
        assert await is_ready_at(client, url) == (503, "loading")
        async with asyncio.timeout(60):
            assert "listening on" in await lines.get()
        assert await is_ready_at(client, url) == (200, None)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        await serving
    host, _, port = url.removeprefix("http://").rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


async def is_ready_at(client: httpx.AsyncClient, url: str) -> tuple[int, str | None]:
    answer = await client.get(f"{url}/ready")
    return answer.status_code, answer.json()["reason"]


async def test_the_figures_of_an_answer_are_served(served: LoadedModel, start: Start) -> None:
    server, agent = await start(served)
    await agent.decode(served, PARAMS, Seeds.reproducible(1))
    ended = 'slingshot_core_sessions_ended_total{end="closed",model="core"} 1.0'
    metrics = server.observation.metrics
    await eventually(lambda: metrics.sessions_ended["core", "closed"] == 1)
    async with asking(server.observation) as client:
        assert ended in (await client.get("/metrics")).text.splitlines()
