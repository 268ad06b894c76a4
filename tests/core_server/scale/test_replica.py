from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("ray.serve")

from ray.serve.grpc_util import gRPCInputStream

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from core_server.scale import replica as replica_module
from core_server.scale.replica import EXIT_ENGINE_LOST, CoreReplica, ReplicaStream
from core_server.scale.router import FewestSessions
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import EngineLost, ModelBroken
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import engine_in_this_process, eventually, open_request
from tests.core_server.scale.conftest import Ended


async def test_a_replica_whose_engine_has_ended_ends_and_is_not_healthy_before(
    served: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    exited: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(replica_module.os, "_exit", exited.put_nowait)

    @asynccontextmanager
    async def engines(_: ServerConfig) -> AsyncIterator[Engines]:
        async with engine_in_this_process(served, slots=2) as engine:
            yield Engines([engine])

    monkeypatch.setattr(replica_module, "running_engines", engines)
    replica = CoreReplica.__new__(CoreReplica)
    await replica.__init__(ServerConfig({}))  # type: ignore[misc]  # Serve awaits it too
    await replica.check_health()
    replica._engines.close()
    assert await asyncio.wait_for(exited.get(), 10) == EXIT_ENGINE_LOST
    with pytest.raises(EngineLost):
        await replica.check_health()
    await replica.__del__()
    replica.__class__ = Ended  # type: ignore[assignment]  # else Python calls it once more, and awaits nothing


async def test_a_replica_with_a_broken_model_is_not_healthy_so_serve_replaces_it(replica: CoreReplica) -> None:
    await replica.check_health()
    next(iter(replica._engines)).broken_models.add("core")
    with pytest.raises(ModelBroken, match="broken models: core"):
        await replica.check_health()


async def test_a_replica_that_serve_ends_ends_its_engine_and_not_itself(
    replica: CoreReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(replica_module.os, "_exit", exits.append)
    await replica.__del__()
    await asyncio.wait_for(replica._engines.gone(), 10)
    await asyncio.sleep(0.1)  # for whoever else waits for it
    assert not exits


class SilentCall:
    """What of a call's own context is looked at while nothing is wrong."""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return []


async def test_an_answer_that_serve_takes_back_ends_although_its_agent_is_silent(
    served: LoadedModel, replica: CoreReplica
) -> None:
    opening = pb.CollaborateRequest(
        open=open_to_proto(open_request(served, DecodingParams(block_size=8, max_tokens=24)))
    )

    async def silent() -> AsyncIterator[bytes]:
        yield opening.SerializeToString()
        await asyncio.Event().wait()

    frames = replica.Collaborate(gRPCInputStream(silent()), SilentCall())  # type: ignore[arg-type]
    await anext(frames)
    assert replica._service.sessions_active == 1
    await asyncio.wait_for(frames.aclose(), 10)  # type: ignore[attr-defined]  # it is a generator
    assert replica._service.sessions_active == 0


class Flood:
    """A service that sends for as long as it may."""

    async def Collaborate(self, _: object, call: ReplicaStream) -> None:  # noqa: N802  # the contract's name
        while True:
            await call.write(b"logits")


async def test_an_answer_that_serve_cancels_ends_although_its_queue_is_full() -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield await asyncio.Event().wait()

    call = ReplicaStream(gRPCInputStream(silent()), SilentCall())  # type: ignore[arg-type]
    frames = call.frames(Flood())  # type: ignore[arg-type]
    await anext(frames)
    await eventually(call._frames.full)
    await asyncio.wait_for(frames.aclose(), 1)


async def test_every_replica_is_looked_at_for_an_answer_in_no_order_of_preference() -> None:
    router, replicas = FewestSessions.__new__(FewestSessions), ["one", "two", "three"]
    ranked = [await router.choose_replicas(replicas) for _ in range(100)]  # type: ignore[arg-type]
    assert all(sorted(one[0]) == sorted(replicas) and len(one) == 1 for one in ranked)
    assert {one[0][0] for one in ranked} == set(replicas)
