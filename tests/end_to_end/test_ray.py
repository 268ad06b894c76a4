"""The core server on a Ray cluster of two nodes: answers spread, and outlive the replica that they began on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("ray.serve")

from core_server.access.keys import create_key
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreBusy, KeyRefused, ProtocolViolation
from ssd2.logits.format import PREFERRED
from ssd2.wire.codec import MAX_MESSAGE_BYTES, ModelCard, OpenRequest
from tests.core_server.conftest import eventually
from tests.end_to_end.certificates import Certificates, certificates
from tests.end_to_end.processes import is_running
from tests.end_to_end.ray_cluster import RayCluster, free_port, running_on_ray
from user_agent.answering.answer import Answer, Observer, ProjectedBlock
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.store.ledger import Ledger

pytestmark = pytest.mark.slow

SESSIONS = 4
TIMEOUT_S = 120


@dataclass(frozen=True)
class Line:
    """Where agents connect to, and with what."""

    address: str
    credentials: CoreCredentials

    def client(self, **changes: Any) -> CoreClient:
        return CoreClient(
            self.address, Ledger.in_memory(), credentials=self.credentials, answer_timeout_s=TIMEOUT_S, **changes
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def line(files: Certificates) -> Line:
    key, _ = create_key(files.ca.with_name("keys.json"), "somebody")
    return Line(f"localhost:{free_port()}", CoreCredentials(files.ca, key=key))


@pytest.fixture(scope="module")
def cluster(core_folder: Path, files: Certificates, line: Line) -> Iterator[RayCluster]:
    told = {
        "PORT": line.address.rpartition(":")[2],
        "TLS_CERTIFICATE": str(files.certificate),
        "TLS_KEY": str(files.key),
        "KEYS": str(files.ca.with_name("keys.json")),
    }
    variables = {f"SLINGSHOT_PROXY_{name}": value for name, value in told.items()}
    replicas = {"sessions_per_replica": SESSIONS, "min_replicas": 2, "max_replicas": 2}
    with running_on_ray(core_folder, variables=variables, **replicas) as running:
        yield running


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def question(number: int) -> Question:
    params = DecodingParams(block_size=8, max_tokens=32, steps=12, stop=0.4)
    collaboration = CollaborationParams(0.3, 0.0)
    return Question("Where is it?", (), collaboration, params, Seeds.reproducible(number), speculation=2)


def opening(card: ModelCard) -> OpenRequest:
    same = (card.model, card.family, card.model_sha256, card.vocabulary_sha256, card.vocab_size)
    return OpenRequest(*same, (1, 20), 7, (1000, 500), 8, 2, 5.0, "own", PREFERRED, 0, 0)


async def answered(user: UserModel, line: Line, asked: Question, observer: Observer | None = None) -> Answer:
    async with line.client(patience_s=TIMEOUT_S) as client, asyncio.timeout(TIMEOUT_S):
        return await Agent(user, client).answer(asked, observer)


def tokens(answer: Answer) -> list[int]:
    return [token.token_id for token in answer.tokens]


class AllUnderWay(Observer):
    """Has something happen once, when all of some answers are in their second block."""

    def __init__(self, happen: Callable[[], None], answers: int) -> None:
        self._happen, self._missing, self.happened = happen, answers, 0

    def projected(self, seen: ProjectedBlock) -> None:
        if (seen.block, seen.step) == (1, 2):
            self._missing -= 1
            if not self._missing:
                self.happened += 1
                self._happen()


def test_replicas_are_on_both_nodes(cluster: RayCluster) -> None:
    assert len({cluster.node_of(replica) for replica in cluster.wait_for_replicas(2)}) == 2


async def test_without_a_key_or_without_tls_the_proxy_answers_nobody(cluster: RayCluster, line: Line) -> None:
    without_key = Line(line.address, replace(line.credentials, key=None))
    async with without_key.client() as client:
        with pytest.raises(KeyRefused):
            await client.model_card("", "ssd-2")
    plain = Line(cluster.address, replace(line.credentials, ca=None))
    async with plain.client() as client:
        with pytest.raises(ProtocolViolation, match="not encrypted"):
            await client.model_card("", "ssd-2")


@pytest.mark.parametrize("method", ["grpc.health.v1.Health/Check", "ray.serve.RayServeAPIService/Healthz"])
async def test_what_is_answered_without_a_key_takes_no_message_beyond_the_limit(
    cluster: RayCluster, method: str
) -> None:
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        call = channel.unary_unary(f"/{method}")(bytes(MAX_MESSAGE_BYTES + 1), timeout=TIMEOUT_S)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_sessions_spread_over_the_replicas_until_all_are_full(cluster: RayCluster, line: Line) -> None:
    """A replica takes no more than its own, so twice as many are on two."""
    async with line.client(patience_s=0) as client:
        request = opening(await client.model_card("", "ssd-2"))
        held = [await client.open(replace(request, noise_seed=number)) for number in range(2 * SESSIONS)]
        with pytest.raises(CoreBusy, match=f"limit of {SESSIONS} answers"):
            await client.open(request)
        for stream in held:
            await stream.close()
        await (await client.open(request)).close()  # and their slots are free again


@pytest.mark.parametrize("what", ["replica", "engine"])
async def test_a_replica_killed_under_load_costs_no_token(
    cluster: RayCluster, line: Line, user: UserModel, what: str
) -> None:
    victim, survivor = await asyncio.to_thread(cluster.wait_for_replicas, 2)
    (engine,) = cluster.engines(victim)
    answers = SESSIONS + 1  # one more than a replica takes, so that each has some
    unbroken = [tokens(await answered(user, line, question(number))) for number in range(answers)]
    fault = AllUnderWay(lambda: os.kill(victim if what == "replica" else engine, signal.SIGKILL), answers)
    asked = [answered(user, line, question(number), fault) for number in range(answers)]
    broken = await asyncio.gather(*asked)
    assert [tokens(answer) for answer in broken] == unbroken
    assert fault.happened == 1
    assert sum(answer.resumed for answer in broken) >= 1, "nobody was on the replica that was killed"
    # Whichever was not killed ends by itself, once it sees that the other has.
    await eventually(lambda: not is_running(victim) and not is_running(engine), timeout_s=20)
    assert is_running(survivor)
    again = await asyncio.to_thread(cluster.wait_for_replicas, 2)
    assert victim not in again, "Serve has replaced it"
