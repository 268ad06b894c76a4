"""An answer has the same tokens whatever the core guesses, for every family."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from core_server.frontend.server import CoreServer
from ssd2.algorithm.params import PROJECTIONS, CollaborationParams, DecodingParams, Seeds
from ssd2.logits.format import FLOAT16
from ssd2.models.checkpoint import load_checkpoint, load_config_and_tokenizer
from ssd2.models.registry import families, family_named
from tests.core_server.conftest import engine_in_this_process, eventually, serving
from tests.families import SAVE
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

from .guessing_line import GuessingLine, guessing_line

SESSIONS = 8
SPECULATIONS = (0, 1, 4, 16)
WEIGHTS = (0.0, 0.02, 0.3, 0.0)
"""λ of the sessions: with more of the user model fewer guesses are right."""


@dataclass
class Pair:
    """A core and a user model of one family.

    Attributes:
        core: loaded.
        user: loaded.
        tokens: of each session's answer without guesses and without other sessions.
    """

    core: LoadedModel
    user: UserModel
    tokens: list[list[int]] = field(default_factory=list)


@pytest.fixture(scope="module", params=SAVE)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder, save = tmp_path_factory.mktemp("pair"), SAVE[request.param]
    save(folder / "core", 2)
    save(folder / "user", 102)
    pair = Pair(
        LoadedModel("core", load_checkpoint(folder / "core")), UserModel.load(folder / "user", with_weights=True)
    )
    pair.tokens = asyncio.run(_tokens_without_guesses(pair))
    assert all(len(tokens) > 4 for tokens in pair.tokens), "too short for a guess to matter"
    assert len({tuple(tokens) for tokens in pair.tokens}) > SESSIONS / 2, "too much alike to tell one from another"
    return pair


async def _tokens_without_guesses(pair: Pair) -> list[list[int]]:
    async with _serving(pair) as (_, line):
        return [ids(await answered(pair, line, question(pair, number))) for number in range(SESSIONS)]


@asynccontextmanager
async def _serving(pair: Pair, cut_at: int | None = None) -> AsyncIterator[tuple[CoreServer, GuessingLine]]:
    """Serve the pair's core in this process."""
    config = ServerConfig({}, grace_s=0.0, max_sessions=SESSIONS, speculation=max(SPECULATIONS))
    async with (
        engine_in_this_process(pair.core, slots=SESSIONS) as engine,
        serving(Engines([engine]), config) as (server, agent),
        guessing_line(f"127.0.0.1:{agent.port}", cut_at) as line,
    ):
        yield server, line


def question(pair: Pair, number: int, speculation: int = 0) -> Question:
    """Ask for three blocks of five timesteps, or twelve tokens; projections and prompt lengths vary by number."""
    config = pair.user.config
    params = DecodingParams.for_model(
        config,
        block_size=min(config.block_size, 3),
        steps=min(config.default_steps, 5),
        stop=config.trained_above,  # as low as there are networks: only there x_t shows what was projected
        max_tokens=9 if config.block_size > 1 else 12,
        projection=PROJECTIONS[number % len(PROJECTIONS)],
        top_p=0.3,
        self_conditioning=("own", "projection")[number % 2],
    )
    return Question(
        f"Where is it{', and where' * number}?",
        (Passage("The key is in the blue drawer.", Path("notes.md"), 1),),
        CollaborationParams(WEIGHTS[number % len(WEIGHTS)], alpha=1.0),
        params,
        Seeds.reproducible(number),
        # In halves: the logits of random models are so close together that coarser ones would often be the same.
        logits_format=FLOAT16,
        speculation=speculation,
    )


async def answered(pair: Pair, line: GuessingLine, asked: Question) -> Answer:
    async with asyncio.timeout(60), CoreClient(line.address, Ledger.in_memory()) as client:
        return await Agent(pair.user, client).answer(asked)


async def answered_together(pair: Pair, line: GuessingLine, speculation: int) -> list[Answer]:
    asked = (question(pair, number, speculation) for number in range(SESSIONS))
    return await asyncio.gather(*(answered(pair, line, one) for one in asked))


def ids(answer: Answer) -> list[int]:
    return [token.token_id for token in answer.tokens]


def check_guesses(line: GuessingLine, answers: Sequence[Answer]) -> None:
    """Check that some guesses were right and at least a third wrong."""
    right = sum(answer.guessed_timesteps for answer in answers)
    assert right > 0
    assert line.guesses - right >= line.guesses / 3


def test_every_family_is_among_them(tmp_path: Path) -> None:
    for name, save in SAVE.items():
        save(tmp_path / name, 1)
    tested = {load_config_and_tokenizer(tmp_path / name)[0].family for name in SAVE}
    assert tested == {family.name for family in families()}


@pytest.mark.parametrize("speculation", SPECULATIONS[1:])
async def test_tokens_are_the_same_whatever_is_guessed(pair: Pair, speculation: int) -> None:
    async with _serving(pair) as (_, line):
        answers = [await answered(pair, line, question(pair, number, speculation)) for number in range(3)]
    assert [ids(answer) for answer in answers] == pair.tokens[:3]
    check_guesses(line, answers)


@pytest.mark.parametrize("speculation", SPECULATIONS)
async def test_tokens_are_the_same_beside_other_answers(pair: Pair, speculation: int) -> None:
    async with _serving(pair) as (server, line):
        answers = await answered_together(pair, line, speculation)
        if family_named(pair.user.config.family).lane:
            await eventually(lambda: _batches_of_several(server) > 0)
    assert [ids(answer) for answer in answers] == pair.tokens
    if speculation:
        check_guesses(line, answers)


async def test_tokens_are_the_same_where_the_line_breaks_among_guesses(pair: Pair) -> None:
    async with _serving(pair, cut_at=5) as (_, line):
        answers = await answered_together(pair, line, 4)
    assert (line.cuts, [answer.resumed for answer in answers]) == (SESSIONS, [1] * SESSIONS)
    assert [ids(answer) for answer in answers] == pair.tokens
    check_guesses(line, answers)


def _batches_of_several(server: CoreServer) -> float:
    def figure(name: str, **labels: str) -> float:
        registry = server.observation.metrics.registry
        return registry.get_sample_value(f"slingshot_core_batch_size_{name}", {"engine": "0", **labels}) or 0.0

    return figure("count") - figure("bucket", le="1.0")
