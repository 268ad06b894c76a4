"""Answers to questions about one page: how long until the first token, and how fast the others follow.

The core server is a process of its own; the agent is this one, over loopback gRPC. Each computes with one thread, at
λ 0.5 and α 1, greedily and past any EOS, so that all answers are equally long. Every question is about another page,
which is the user model's only passage: no process has any of its keys and values.

    first_token_s  from the question to the first token: both prompts are read
    tokens_per_s   of the others
    core_ms        of a token at λ 0, where the user model computes nothing
    user_ms        of a token at λ 1 and α 1, which opens no core
    beside_ms      a token, less the longer of the two: the line, the mix, and what the two do not do side by side
    prompt_tokens  of the user model's prompt
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from tests.bench.asked import THREADS
from tests.bench.progress import say
from tests.end_to_end.conftest import running_core
from tests.families import save_llama
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger

SIDES = {
    "together": CollaborationParams(0.5, 1.0),
    "core": CollaborationParams(0.0, 0.0),
    "user": CollaborationParams(1.0, 1.0),
}

ROOMS = ("kitchen", "bathroom", "hall", "cellar", "attic", "garage", "study", "nursery")


@dataclass(frozen=True)
class Times:
    """Seconds of one answer from its question: to its first token, and to its last."""

    first: float
    last: float
    tokens: int

    @property
    def token(self) -> float:
        """Seconds of a token behind the first."""
        return (self.last - self.first) / (self.tokens - 1)


def page(number: int) -> str:
    """Write a page of about 500 words, whose first ones are like no other page's."""
    lines = [f"House number {number}: notes for whoever looks after it while we are away."]
    for place, room in enumerate(ROOMS):
        hour, bulb, day = 6 + (number + place) % 12, 20 + 5 * ((number + 3 * place) % 9), 1 + (number + 2 * place) % 28
        lines.append(
            f"The {room} has a window to the garden and a radiator, which is turned on at {hour} in the morning and "
            f"off when you leave. Its lamp takes a bulb of {bulb} watts, and spare ones are in the drawer under the "
            f"shelf. Please air the {room} once a day, and water the plant on the sill on day {day} of the month."
        )
    return " ".join(lines)


def run(*, core: Path | None, user: Path | None, tokens: int, runs: int, precision: str) -> Iterator[dict[str, object]]:
    """Measure answers of both together, and of each side by itself, in turns.

    Args:
        core: folder of θ_core; None for a random one.
        user: folder of θ_user; None for the core's.
        tokens: of an answer.
        runs: answers of each.
        precision: of the core's weights.
    """
    torch.set_num_threads(THREADS)
    with TemporaryDirectory(prefix="slingshot-bench-") as name:
        folder = core or Path(name) / "random"
        if core is None:
            save_llama(folder, 1782)
        loaded = UserModel.load(user or folder, with_weights=True)
        with running_core(folder, "--threads", str(THREADS), "--precision", precision) as server:
            times = asyncio.run(_answers(server.address, loaded, tokens, runs))
    token_ms = {side: 1000 * median(one.token for one in found) for side, found in times.items()}
    together = times["together"]
    yield {
        "first_token_s": round(median(one.first for one in together), 4),
        "tokens_per_s": round(1000 / token_ms["together"], 1),
        "core_ms": round(token_ms["core"], 1),
        "user_ms": round(token_ms["user"], 1),
        "beside_ms": round(token_ms["together"] - max(token_ms["core"], token_ms["user"]), 1),
        "prompt_tokens": len(loaded.prompt(_instruction(0), _passages(loaded, 0, tokens))),
        "words": len(page(0).split()),
        "tokens": tokens,
        "runs": runs,
        "precision": precision,
    }


async def _answers(address: str, user: UserModel, tokens: int, runs: int) -> dict[str, list[Times]]:
    taken: dict[str, list[Times]] = {side: [] for side in SIDES}
    async with CoreClient(address, Ledger.in_memory()) as client:
        agent = Agent(user, client)
        for number in range(-1, runs):  # the first one warms both processes up
            for place, (side, collaboration) in enumerate(SIDES.items()):
                params = DecodingParams.for_model(user.config, max_tokens=tokens, projection="greedy")
                asked = _question(user, 3 * (number + 1) + place, collaboration, params)
                times = await _timed(agent, asked)
                say(
                    f"run {number + 1} of {runs}: {side}, {times.first:.2f} s, then {1000 * times.token:.1f} ms a token"
                )
                if number >= 0:
                    taken[side].append(times)
    return taken


async def _timed(agent: Agent, asked: Question) -> Times:
    started, taken = time.perf_counter(), list[float]()
    async with agent.begin(asked, ends_at_eos=False) as answer:
        while answer.due:
            await answer.step()
            taken.append(time.perf_counter() - started)
    return Times(taken[0], taken[-1], len(taken))


def _question(user: UserModel, number: int, collaboration: CollaborationParams, params: DecodingParams) -> Question:
    passages = _passages(user, number, params.max_tokens) if collaboration.uses_user else []
    return Question(_instruction(number), passages, collaboration, params, Seeds.reproducible(number))


def _passages(user: UserModel, number: int, tokens: int) -> Sequence[Passage]:
    """Return the page, cut to what a small model has room for."""
    return user.fitting(_instruction(number), [Passage(page(number), Path("house.txt"), 1)], tokens).passages


def _instruction(number: int) -> str:
    room = ROOMS[number % len(ROOMS)]
    return f"House {number}: when is the radiator of the {room} turned on, and which bulb does its lamp take?"
