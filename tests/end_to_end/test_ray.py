"""The core server on a Ray cluster of two nodes: answers spread, and outlive the replica that they began on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray.serve")

from ssd2.errors import CoreBusy
from ssd2.logits_format import PREFERRED
from ssd2.params import CollaborationParams, DecodingParams, Seeds
from ssd2.wire.codec import ModelCard, OpenRequest
from tests.end_to_end.processes import is_running
from tests.end_to_end.ray_cluster import RayCluster, running_on_ray
from user_agent.agent import Agent, Question
from user_agent.answer import Answer, Observer, ProjectedBlock
from user_agent.core_client import CoreClient
from user_agent.user_model import UserModel

pytestmark = pytest.mark.slow

SESSIONS = 4
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def cluster(core_folder: Path) -> Iterator[RayCluster]:
    with running_on_ray(core_folder, sessions_per_replica=SESSIONS, min_replicas=2, max_replicas=2) as running:
        yield running


@pytest.fixture(scope="module")
def user(user_folder: Path) -> UserModel:
    return UserModel.load(user_folder, with_weights=True)


def question(number: int) -> Question:
    params = DecodingParams(block_size=8, max_tokens=32, steps=12)
    collaboration = CollaborationParams(0.3, 0.0)
    return Question("Where is it?", (), collaboration, params, Seeds.reproducible(number), speculation=2)


def opening(card: ModelCard) -> OpenRequest:
    same = (card.model, card.family, card.model_sha256, card.tokenizer_sha256, card.vocab_size)
    return OpenRequest(*same, (1, 20), 7, (1000, 500), 8, 2, 5.0, "own", PREFERRED, 0, 0)


async def answered(user: UserModel, address: str, asked: Question, observer: Observer | None = None) -> Answer:
    async with (
        CoreClient(address, patience_s=TIMEOUT_S, answer_timeout_s=TIMEOUT_S) as client,
        asyncio.timeout(TIMEOUT_S),
    ):
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


async def test_sessions_spread_over_the_replicas_until_all_are_full(cluster: RayCluster) -> None:
    """A replica takes no more than its own, so twice as many are on two."""
    async with CoreClient(cluster.address, answer_timeout_s=TIMEOUT_S, patience_s=0) as client:
        request = opening(await client.model_card("", "ssd-2"))
        held = [await client.open(replace(request, noise_seed=number)) for number in range(2 * SESSIONS)]
        with pytest.raises(CoreBusy, match=f"limit of {SESSIONS} answers"):
            await client.open(request)
        for stream in held:
            await stream.close()
        await (await client.open(request)).close()  # and their slots are free again


@pytest.mark.parametrize("what", ["replica", "engine"])
async def test_a_replica_killed_under_load_costs_no_token(cluster: RayCluster, user: UserModel, what: str) -> None:
    victim, survivor = await asyncio.to_thread(cluster.wait_for_replicas, 2)
    (engine,) = cluster.engines(victim)
    unbroken = [tokens(await answered(user, cluster.address, question(number))) for number in range(SESSIONS)]
    fault = AllUnderWay(lambda: os.kill(victim if what == "replica" else engine, signal.SIGKILL), SESSIONS)
    asked = [answered(user, cluster.address, question(number), fault) for number in range(SESSIONS)]
    broken = await asyncio.gather(*asked)
    assert [tokens(answer) for answer in broken] == unbroken
    assert fault.happened == 1
    assert sum(answer.resumed for answer in broken) >= 1, "nobody was on the replica that was killed"
    assert not is_running(victim)
    assert not is_running(engine)
    assert is_running(survivor)
    again = await asyncio.to_thread(cluster.wait_for_replicas, 2)
    assert victim not in again, "Serve has replaced it"
