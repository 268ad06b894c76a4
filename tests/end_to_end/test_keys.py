"""Who gets in: keys and certificates on both sides, as processes, and what they say when it fails."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_server.access.commands import main as manage_access
from core_server.access.keys import READ_AGAIN_S, create_key, revoke_key
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.projection import FIRST
from ssd2.errors import KeyRefused, SessionLimitReached, TokenLimitReached, TokenOutOfRange
from ssd2.logits.format import PREFERRED
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import PROTOCOL_VERSION, ModelCard, OpenRequest
from tests.end_to_end.certificates import Certificates, certificates
from tests.end_to_end.conftest import ENVIRONMENT, CoreProcess, running_core
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.errors import CoreUnavailable
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.line.resuming_stream import ResumingStream
from user_agent.store.ledger import Ledger

SERVICE = "/slingshot.collaboration.v1.CollaborationService/"
STREAMS = 50


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    create_key(file, "somebody")
    return file


@pytest.fixture(scope="module")
def core(core_folder: Path, keys: Path) -> Iterator[CoreProcess]:
    with running_core(f"tiny={core_folder}", "--keys", str(keys), "--max-sessions", str(STREAMS + 10)) as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=False)


def question() -> Question:
    params = DecodingParams(block_size=8, max_tokens=16, steps=3, stop=0.4)
    return Question("Where is it?", (), CollaborationParams(0.0), params, Seeds.reproducible(1))


def line(core: CoreProcess, key: str | None, ca: Path | None = None, **files: Path) -> CoreClient:
    return CoreClient(
        core.address,
        Ledger.in_memory(),
        credentials=CoreCredentials(ca, key=key, **files),
        connect_timeout_s=2.0,
        patience_s=0,
    )


def opening(card: ModelCard) -> OpenRequest:
    same = (card.model, card.family, card.model_sha256, card.vocabulary_sha256, card.vocab_size)
    return OpenRequest(*same, (1, 20), 7, (1000, 500), 8, 2, 5.0, "own", PREFERRED, 0, 0)


async def taken_up() -> None:
    """Wait until a running server looks at its file of keys again."""
    await asyncio.sleep(READ_AGAIN_S + 0.1)


async def opened(client: CoreClient) -> ResumingStream:
    return await client.open(opening(await client.model_card("", "ssd-2")))


async def refused(stub_call: grpc.aio.Call) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """How a call ended, unary or stream."""
    metadata = await stub_call.trailing_metadata()
    return await stub_call.code(), await stub_call.details(), dict(metadata)


WRONG = ["sk-", "sk-0-0", "Bearer", "x" * 4000]


@pytest.mark.parametrize("method", ["GetModelCard", "Collaborate", "NoMethod"])
async def test_without_a_key_nothing_answers_and_a_wrong_one_looks_like_none(
    core: CoreProcess, keys: Path, method: str
) -> None:
    key, entry = create_key(keys, f"right id, wrong secret, {method}")
    revoked, _ = create_key(keys, f"revoked, {method}")
    await taken_up()
    async with line(core, revoked) as client:
        await client.model_card("", "ssd-2")
    revoke_key(keys, f"revoked, {method}")
    await taken_up()
    wrong = [f"Bearer {one}" for one in (*WRONG, f"{key}x", key[:-1], f"sk-{entry.id}-", revoked)]
    given: list[tuple[tuple[str, str], ...]] = [
        (),
        *((("authorization", value),) for value in (*wrong, key, f"Basic {key}")),
    ]
    given.append((("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")))
    seen = set()
    async with grpc.aio.insecure_channel(core.address) as channel:
        for metadata in given:
            call = channel.unary_unary(f"{SERVICE}{method}")(b"", metadata=metadata, timeout=10)
            stream = channel.stream_stream(f"{SERVICE}{method}")(metadata=metadata, timeout=10)
            for made in (call, stream):
                code, details, trailer = await refused(made)
                seen.add((code, details, tuple(trailer.items())))
    ((code, details, trailer),) = seen
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "get one from its provider" in details
    assert dict(trailer)["slingshot-error-code"] == KeyRefused.code


async def test_health_answers_without_a_key(core: CoreProcess) -> None:
    async with grpc.aio.insecure_channel(core.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert (await health.Check(request, timeout=10)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await health.Watch(request, timeout=10).read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_with_a_key_an_answer_is_the_one_of_a_core_without(
    core: CoreProcess, core_folder: Path, keys: Path, user: UserModel
) -> None:
    key, _ = create_key(keys, "right")
    await taken_up()
    answers = []
    with running_core(core_folder) as open_to_all:
        for client in (line(core, key), line(open_to_all, None)):
            async with client:
                answers.append(await Agent(user, client).answer(question()))
    assert [token.token_id for token in answers[0].tokens] == [token.token_id for token in answers[1].tokens]


async def test_a_revoked_key_ends_open_streams_and_new_calls_while_others_go_on(core: CoreProcess, keys: Path) -> None:
    theirs, _ = create_key(keys, "theirs")
    ours, _ = create_key(keys, "ours")
    await taken_up()
    async with (
        line(core, theirs) as their_client,
        line(core, ours) as our_client,
        grpc.aio.insecure_channel(core.address) as channel,
    ):
        authorization = (("authorization", f"Bearer {theirs}"),)
        without_open = pb_grpc.CollaborationServiceStub(channel).Collaborate(metadata=authorization)
        await without_open.wait_for_connection()
        their_stream, our_stream = await opened(their_client), await opened(our_client)
        await their_stream.logits(FIRST)
        revoke_key(keys, "theirs")
        revoked_at = time.monotonic()
        with pytest.raises(KeyRefused, match="get one from its provider"):
            await their_stream.logits(FIRST)
        assert (await refused(without_open))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert time.monotonic() - revoked_at < 5
        with pytest.raises(KeyRefused, match="valid API key"):
            await their_client.model_card("", "ssd-2")
        await our_stream.logits(FIRST)
        await our_stream.close()


async def test_a_file_of_keys_that_is_gone_lets_nobody_in(core_folder: Path, tmp_path: Path) -> None:
    key, _ = create_key(tmp_path / "keys.json", "somebody")
    with running_core(core_folder, "--keys", str(tmp_path / "keys.json")) as core:
        async with line(core, key) as client:
            await client.model_card("", "ssd-2")
            (tmp_path / "keys.json").write_text("{")
            await taken_up()
            with pytest.raises(KeyRefused):
                await client.model_card("", "ssd-2")


async def test_of_fifty_streams_at_once_exactly_as_many_get_in_as_their_key_allows(
    core: CoreProcess, keys: Path
) -> None:
    key, _ = create_key(keys, "seven at a time", max_sessions=7)
    other, _ = create_key(keys, "another's streams count apart", max_sessions=1)
    await taken_up()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(line(core, key))
        request = opening(await client.model_card("", "ssd-2"))
        for _ in range(2):  # the second time shows that places are given back
            results = await asyncio.gather(*(client.open(request) for _ in range(STREAMS)), return_exceptions=True)
            admitted = [result for result in results if isinstance(result, ResumingStream)]
            turned_away = [result for result in results if not isinstance(result, ResumingStream)]
            assert (len(admitted), len(turned_away)) == (7, STREAMS - 7)
            assert {type(error) for error in turned_away} == {SessionLimitReached}
            assert all("limit of 7 answers at a time" in str(error) for error in turned_away)
            async with line(core, other) as others_client:
                await (await others_client.open(request)).close()
            for stream in admitted:
                await stream.logits(FIRST)
                await stream.close()


async def test_a_key_without_tokens_left_is_told_when_it_has_some_again(
    core: CoreProcess, keys: Path, user: UserModel
) -> None:
    key, _ = create_key(keys, "six a minute", tokens_per_minute=6)
    await taken_up()
    async with line(core, key) as client:
        answer = await Agent(user, client).answer(question())  # two blocks of eight
        assert answer.tokens
        with pytest.raises(TokenLimitReached, match=r"limit of 6 tokens a minute; ask again in \d+ s"):
            await Agent(user, client).answer(question())


async def _through(core: CoreProcess, credentials: CoreCredentials) -> ModelCard:
    async with CoreClient(core.address, Ledger.in_memory(), credentials=credentials, connect_timeout_s=2.0) as client:
        return await client.model_card("", "ssd-2")


@pytest.fixture(scope="module")
def demanding(core_folder: Path, files: Certificates) -> Iterator[CoreProcess]:
    """A core that asks agents for certificates."""
    with running_core(core_folder, *files.core_options, "--client-ca", str(files.ca)) as running:
        running.address = running.address.replace("127.0.0.1", "localhost")
        yield running


async def test_a_core_that_asks_for_certificates_answers_those_who_have_one(
    demanding: CoreProcess, files: Certificates
) -> None:
    with_one = CoreCredentials(files.ca, files.client, files.client_key)
    assert (await _through(demanding, with_one)).protocol_version == PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("none", "requires a client certificate"),
        ("another authority's", "refuses this device's certificate"),
        ("out of date", "refuses this device's certificate"),
    ],
)
async def test_an_agent_without_the_right_certificate_is_told_to_get_one(
    demanding: CoreProcess, files: Certificates, which: str, says: str
) -> None:
    own = {
        "none": (None, None),
        "another authority's": (files.other_client, files.other_client_key),
        "out of date": (files.expired_client, files.expired_client_key),
    }[which]
    async with asyncio.timeout(10):
        with pytest.raises(CoreUnavailable, match=says) as raised:
            await _through(demanding, CoreCredentials(files.ca, *own))
    assert raised.value.parameter == "client_certificate"


async def test_a_core_whose_certificate_is_out_of_date_is_not_talked_to(core_folder: Path, files: Certificates) -> None:
    options = ("--tls-certificate", str(files.expired), "--tls-key", str(files.expired_key))
    with running_core(core_folder, *options) as core:
        core.address = core.address.replace("127.0.0.1", "localhost")
        async with asyncio.timeout(10):
            with pytest.raises(CoreUnavailable, match=r"not valid at this device's time.*ask its provider"):
                await _through(core, CoreCredentials(files.ca))


async def test_a_client_s_certificate_does_not_do_for_a_core(core_folder: Path, tmp_path: Path) -> None:
    """Of the same authority, and for the name that is dialled: else any client could stand in for the core."""
    assert manage_access(["certs", "create", "--out", str(tmp_path), "--client", "localhost"]) == 0
    pair = (tmp_path / "client-localhost.pem", tmp_path / "client-localhost.key")
    served_with = ("--tls-certificate", str(pair[0]), "--tls-key", str(pair[1]))
    with running_core(core_folder, *served_with) as core:
        core.address = core.address.replace("127.0.0.1", "localhost")
        async with asyncio.timeout(10):
            with pytest.raises(CoreUnavailable, match="no TLS connection to the core"):
                await _through(core, CoreCredentials(tmp_path / "ca.pem"))


async def test_made_certificates_and_a_key_do_for_both_sides(core_folder: Path, tmp_path: Path, keys: Path) -> None:
    made = tmp_path / "certs"
    assert manage_access(["certs", "create", "--out", str(made), "--host", "localhost", "--client", "alice"]) == 0
    assert manage_access(["certs", "create", "--out", str(made), "--client", "bob@example.org"]) == 0
    key, _ = create_key(keys, "over TLS")
    served_with = (
        "--tls-certificate",
        made / "core.pem",
        "--tls-key",
        made / "core.key",
        "--client-ca",
        made / "ca.pem",
    )
    with running_core(core_folder, *map(str, served_with), "--keys", str(keys)) as core:
        core.address = core.address.replace("127.0.0.1", "localhost")
        for name in ("alice", "bob@example.org"):
            pair = (made / f"client-{name}.pem", made / f"client-{name}.key")
            assert await _through(core, CoreCredentials(made / "ca.pem", *pair, key))
            with pytest.raises(KeyRefused):
                await _through(core, CoreCredentials(made / "ca.pem", *pair))


def test_neither_key_nor_prompt_nor_token_ids_are_in_any_log(
    core_folder: Path, user_folder: Path, keys: Path, tmp_path: Path
) -> None:
    """Both sides at level debug, through an answer, refusals and streams that break the rules."""
    key, entry = create_key(keys, "logged")
    with _logging_core(core_folder, keys, tmp_path / "core.log") as address:
        asyncio.run(_asked_and_broken(address, key))
        agents = _ask_as_a_process(address, user_folder, key) + _ask_as_a_process(address, user_folder, f"{key}x")
    cores = (tmp_path / "core.log").read_text()
    for word in ("opened with", "token_out_of_range", "protocol_violation"):
        assert word in cores, "the log is the core's"
    assert agents.count("DEBUG is on") == 2, "the log is the agents'"
    assert "core at" in agents, "one is refused"
    secret = key.split("-", 2)[2]
    for log in (cores, agents):
        for sentinel in (secret, entry.sha256, "Zyxquorv", str(NO_TOKEN)):
            assert sentinel not in log
        for one, other in (*pairwise(PROMPT), *pairwise(SENT)):  # a single number can be anything
            assert not re.search(rf"\b{one}\D{{1,3}}{other}\b", log)


PROMPT, SENT, NO_TOKEN = (1, 1701, 1702, 1703), [1601, 1602, 1603, 1604, 1605, 1606, 1607, 1608], 3133731337


@contextmanager
def _logging_core(core_folder: Path, keys: Path, log: Path) -> Iterator[str]:
    options = ("--keys", str(keys), "--log-level", "debug")
    with log.open("wb") as file, running_core(core_folder, *options, log=file.fileno()) as core:
        yield core.address
        core.process.terminate()
        core.process.wait(timeout=20)


async def _asked_and_broken(address: str, key: str) -> None:
    """An answer, a prompt with a token that there is not, and a stream without Open."""
    async with CoreClient(address, Ledger.in_memory(), credentials=CoreCredentials(key=key)) as client:
        request = replace(opening(await client.model_card("", "ssd-2")), prompt_ids=PROMPT)
        stream = await client.open(request)
        await stream.logits(FIRST)
        await stream.commit(FIRST, SENT)
        await stream.close()
        with pytest.raises(TokenOutOfRange):
            await client.open(replace(request, prompt_ids=(NO_TOKEN,)))
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        broken = pb_grpc.CollaborationServiceStub(channel).Collaborate(metadata=metadata, timeout=10)
        await broken.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=SENT)))
        assert (await refused(broken))[0] is grpc.StatusCode.INVALID_ARGUMENT


def _ask_as_a_process(address: str, user_folder: Path, key: str) -> str:
    """What `user-agent ask` logs, with all that Python can."""
    script = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG); logging.debug('DEBUG is on')\n"
        "sys.argv[0] = 'user-agent'; from user_agent.__main__ import main; main()"
    )
    asked = ("ask", "Zyxquorv Blenkitharp?", "--core", address, "--user-model", str(user_folder), "--lambda-user", "0")
    command = [sys.executable, "-c", script, *asked, "--steps", "3", "--max-tokens", "8", "--no-log"]
    environment = {**ENVIRONMENT, "SLINGSHOT_CORE_KEY": key, "PYTHONASYNCIODEBUG": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
    return done.stderr
