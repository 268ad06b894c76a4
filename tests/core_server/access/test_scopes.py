"""Which answers share a prompt's keys and values: how long an answer takes must not tell what others ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from core_server.access.callers import CALLER, Anybody
from core_server.access.certs import Authority
from core_server.access.keys import create_key
from core_server.access.scopes import scope_of
from core_server.engine.loaded_model import LoadedModel
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import StepPosition
from ssd2.models.context import Context
from ssd2.models.context_pool import ContextPool
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import commit_to_proto, open_to_proto
from tests.conftest import tiny_model
from tests.core_server.conftest import Start, open_request, serve_in_memory

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2)
QUESTION = (1, *range(3, 23))
ANSWER = tuple(range(8, 16))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of context that were computed and not copied, a number for each context."""
    encode, seen = ContextPool._encode_missing, []

    def spy(pool: ContextPool, slots: Sequence[int], contexts: Sequence[Context], done: Sequence[int]) -> None:
        seen.extend(len(context.token_ids) - start for context, start in zip(contexts, done, strict=True))
        encode(pool, slots, contexts, done)

    monkeypatch.setattr(ContextPool, "_encode_missing", spy)
    return seen


class Device:
    """One connection, with or without a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str | None) -> None:
        self._stub = pb_grpc.CollaborationServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()

    async def ask(
        self, served: LoadedModel, prompt: tuple[int, ...] = QUESTION, **metadata: str
    ) -> grpc.aio.StreamStreamCall:
        """Open an answer, and leave it in progress."""
        call = self._stub.Collaborate(timeout=30, metadata=(*self._metadata, *metadata.items()))
        await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS, prompt_ids=prompt))))
        assert (await call.read()).WhichOneof("message") == "opened"
        assert (await call.read()).block_logits.number == 0
        return call


@asynccontextmanager
async def device(
    port: int, key: str | None = None, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[Device]:
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channel = (
        grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options)
        if credentials
        else grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    )
    async with channel:
        yield Device(channel, key)


async def test_answers_of_one_key_share_a_prompt_and_those_of_another_do_not(
    served: LoadedModel, start: Start, tmp_path: Path, encoded: list[int]
) -> None:
    alice, bob = (create_key(tmp_path / "keys.json", name)[0] for name in ("alice", "bob"))
    _, agent = await start(served, keys=tmp_path / "keys.json")
    async with device(agent.port, alice) as one, device(agent.port, alice) as two, device(agent.port, bob) as other:
        await one.ask(served)
        await other.ask(served)
        assert encoded == [len(QUESTION)] * 2
        await two.ask(served)
        await other.ask(served)
        assert encoded == [len(QUESTION)] * 2, "each key's own is there"


async def test_one_connection_may_carry_two_keys_and_shares_nothing_between_them(
    served: LoadedModel, start: Start, tmp_path: Path, encoded: list[int]
) -> None:
    alice, bob = (create_key(tmp_path / "keys.json", name)[0] for name in ("alice", "bob"))
    _, agent = await start(served, keys=tmp_path / "keys.json")
    for key in (alice, bob):
        await Device(agent.channel, key).ask(served)
    assert encoded == [len(QUESTION)] * 2


async def test_without_keys_answers_of_one_connection_share_a_prompt_and_no_others(
    served: LoadedModel, start: Start, encoded: list[int]
) -> None:
    _, agent = await start(served)
    async with device(agent.port) as one, device(agent.port) as other:
        await one.ask(served)
        await one.ask(served)
        assert encoded == [len(QUESTION)]
        scope = f"ipv4:127.0.0.1:{agent.port}"
        await other.ask(served, **{"slingshot-scope": scope})
        assert encoded == [len(QUESTION)] * 2


async def test_without_keys_a_certificate_is_whose_the_prompts_are(
    served: LoadedModel, start: Start, tmp_path: Path, encoded: list[int]
) -> None:
    authority = Authority.in_folder(tmp_path)
    authority.sign_core(["localhost"], tmp_path, days=7)
    root = (tmp_path / "ca.pem").read_bytes()
    credentials = []
    for name in ("alice", "bob"):
        authority.sign_client(name, tmp_path, days=7)
        key, chain = ((tmp_path / f"client-{name}.{end}").read_bytes() for end in ("key", "pem"))
        credentials.append(grpc.ssl_channel_credentials(root, key, chain))
    files = {name: tmp_path / file for name, file in FILES.items()}
    _, agent = await start(served, **files)
    async with (
        device(agent.port, credentials=credentials[0]) as one,
        device(agent.port, credentials=credentials[0]) as two,
        device(agent.port, credentials=credentials[1]) as other,
    ):
        await one.ask(served)
        await two.ask(served)
        assert encoded == [len(QUESTION)]
        await other.ask(served)
        assert encoded == [len(QUESTION)] * 2


FILES = {"tls_certificate": "core.pem", "tls_key": "core.key", "client_ca": "ca.pem"}


async def test_what_an_answer_committed_is_no_other_answers_prompt(start: Start, encoded: list[int]) -> None:
    served = serve_in_memory(tiny_model(3, max_positions=64, context_timestep="none"))  # prompts begin at position 0
    _, agent = await start(served)
    async with device(agent.port) as one, asyncio.timeout(20):
        call = await one.ask(served)
        await call.write(pb.CollaborateRequest(projection=commit_to_proto(StepPosition(0, 0, 0), ANSWER)))
        assert (await call.read()).block_logits.block == 1
        assert encoded == [len(QUESTION), len(ANSWER)]
        await one.ask(served, (*QUESTION, *ANSWER))
        assert encoded == [len(QUESTION), len(ANSWER), len(ANSWER)], "its own prompt is shared, and no more"


async def test_what_an_answer_leaves_is_nobodys(served: LoadedModel, start: Start, encoded: list[int]) -> None:
    _, agent = await start(served)
    async with device(agent.port) as one, asyncio.timeout(20):
        for _ in range(2):
            call = await one.ask(served)
            await call.write(pb.CollaborateRequest(close=pb.Close()))
            assert await call.code() is grpc.StatusCode.OK
    assert encoded == [len(QUESTION)] * 2


class Line:
    """A line as gRPC describes it."""

    def __init__(self, peer: str, certificate: bytes = b"") -> None:
        self._peer, self._certificate = peer, certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]} if self._certificate else {}

    def peer(self) -> str:
        return self._peer


class Holder(Anybody):
    id = "abc"  # type: ignore[assignment]  # of a key


def test_the_key_comes_before_the_certificate_and_that_before_the_connection() -> None:
    named, plain = Line("ipv4:192.0.2.7:1", b"alice"), Line("ipv6:[2001:db8::7]:1")
    assert scope_of(plain) == "ipv6:[2001:db8::7]:1"
    by_certificate = scope_of(named)
    assert by_certificate == scope_of(Line("ipv4:192.0.2.8:2", b"alice"))
    assert by_certificate != scope_of(Line("ipv4:192.0.2.7:1", b"bob"))
    token = CALLER.set(Holder())
    assert scope_of(named) == scope_of(plain) == "key:abc"
    CALLER.reset(token)


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/core.sock", "", "unknown"])
def test_lines_that_look_alike_share_nothing(peer: str) -> None:
    assert scope_of(Line(peer)) is None
