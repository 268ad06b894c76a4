"""Ours against a plain Algorithm 2: time and bytes for a committed token, and whether both answer as well.

Ours is the agent in this process and a core server in another, over loopback gRPC, with the settings of
`tests.bench.asked`; timed from the question to the answer. The plain one (`tests.bench.plain`) runs all three terms one
after the other in this process, whose time holds no transport. Both answer one question at a time, in turns, each
process with one thread. For the accuracies the plain one decodes all items as one batch, on which no answer depends.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import torch

from ssd2.algorithm.sampler import prune
from ssd2.demo.generator import Item
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.result import Outcome
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.ssd2 import SSD2
from tests.bench import plain
from tests.bench.asked import THREADS, asked_items, committed_tokens, question
from tests.bench.progress import say
from tests.end_to_end.conftest import running_core
from user_agent.answering.answer import Answer
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.line.client import CoreClient
from user_agent.store.ledger import Ledger


@dataclass(frozen=True)
class Cost:
    """What one answer took.

    Attributes:
        seconds: from the question to the answer.
        traffic_bytes: payload both ways.
        tokens: of the blocks that were committed.
    """

    seconds: float
    traffic_bytes: int
    tokens: int


class PlainPair:
    """Both models under the plain Algorithm 2."""

    def __init__(self, core: SSD2, user: UserModel, timesteps: int) -> None:
        self._core, self._user, self._timesteps = core, user, timesteps

    def answer(self, questions: Sequence[Question], seed: int) -> tuple[list[str], Cost]:
        """Answers to some questions as one batch, and what they took together."""
        started = time.perf_counter()
        params, stop_ids = questions[0].params, self._user.config.stop_ids
        settings = plain.Settings(
            params.block_size, params.max_blocks, params.top_p, params.simplex_value, self._timesteps
        )
        counted = itertools.count(1)

        def count(_: object) -> None:
            if (number := next(counted)) % 500 == 0:
                say(f"  plain: {number} timesteps, {len(questions)} at a time")

        rows = plain.decode(self._terms(questions), settings, plain.TorchDraws(seed), stop_ids[0], count)
        tokens = sum(map(len, rows))
        per_timestep = plain.bytes_per_timestep(params.block_size, self._user.config.vocab_size)
        traffic = tokens // params.block_size * self._timesteps * per_timestep
        texts = [self._user.tokenizer.decode(prune(row, stop_ids)) for row in rows]
        return texts, Cost(time.perf_counter() - started, traffic, tokens)

    def _terms(self, questions: Sequence[Question]) -> list[plain.Term]:
        """λ and α of §3.2 with the prompts that the package's path has."""
        user, mixed = self._user, questions[0].collaboration
        if not isinstance(user.model, SSD2):
            raise TypeError("Algorithm 2 is about SSD-2 models; give such a --user")
        without_docs = [user.core_prompt(asked.instruction) for asked in questions]
        bos = user.config.bos_token_id
        with_docs = [
            user.tokenizer.encode_prompt(asked.instruction, [p.text for p in asked.passages], bos_token_id=bos)
            for asked in questions
        ]
        return [
            plain.Term(self._core, 1 - mixed.lambda_user, without_docs),
            plain.Term(user.model, mixed.lambda_user * (1 + mixed.alpha), with_docs),
            plain.Term(user.model, -mixed.lambda_user * mixed.alpha, without_docs),
        ]


def run(
    *, core: Path, user: Path, items: int, runs: int, timesteps: int, max_tokens: int
) -> Iterator[dict[str, object]]:
    """Compare the two.

    Args:
        core: folder of θ_core.
        user: folder of θ_user.
        items: questions that the accuracies are taken on.
        runs: answers that are timed, of each.
        timesteps: T of the plain one; the paper's is 1000.
        max_tokens: longest answer.
    """
    torch.set_num_threads(THREADS)
    loaded, network = UserModel.load(user, with_weights=True), load_checkpoint(core).model
    if not isinstance(network, SSD2):
        raise TypeError("Algorithm 2 is about SSD-2 models; give such a --core")
    asked = asked_items(items)
    questions = [question(loaded, item, number, max_tokens) for number, item in enumerate(asked)]
    by_the_paper = PlainPair(network, loaded, timesteps)
    ours: list[Cost] = []
    theirs: list[Cost] = []
    with running_core(core, "--threads", str(THREADS)) as server:
        _ask(server.address, loaded, questions[0])  # the first answer warms both processes up
        for number in range(runs):
            one = questions[number % items]
            ours.append(_cost(_ask(server.address, loaded, one), one))
            theirs.append(by_the_paper.answer([one], number)[1])
            say(f"run {number + 1} of {runs}: ours {ours[-1].seconds:.2f} s, plain {theirs[-1].seconds:.2f} s")
        say(f"accuracy on {items} items")
        answers = [_ask(server.address, loaded, one) for one in questions]
    plain_texts, _ = by_the_paper.answer(questions, runs)
    joint = _joint(asked, [answer.text for answer in answers])
    yield {
        **_ratios(ours, theirs),
        **joint,
        **{f"{name}_plain": value for name, value in _joint(asked, plain_texts).items()},
        "items": items,
        "runs": runs,
        "timesteps_per_token": round(median(a.timesteps / _cost(a, questions[0]).tokens for a in answers), 2),
        "timesteps_per_token_plain": timesteps / questions[0].params.block_size,
    }


def _ask(address: str, user: UserModel, asked: Question) -> Answer:
    async def ask() -> Answer:
        async with CoreClient(address, Ledger.in_memory()) as client:
            return await Agent(user, client).answer(asked)

    return asyncio.run(ask())


def _cost(answer: Answer, asked: Question) -> Cost:
    tokens = committed_tokens(len(answer.tokens), asked.params)
    return Cost(answer.seconds, answer.bytes_up + answer.bytes_down, tokens)


def _joint(items: list[Item], texts: list[str]) -> dict[str, object]:
    """Share of answers that hold both values, with its 95% interval."""
    share = fmean(Outcome.of(items, texts).right)
    return {"joint": round(share, 3), "joint_95": [round(end, 3) for end in wilson_interval(share, len(items))]}


def _ratios(ours: Sequence[Cost], theirs: Sequence[Cost]) -> dict[str, object]:
    """Medians for a committed token, and how many times ours goes into the plain one's."""
    seconds, seconds_plain = (median(cost.seconds / cost.tokens for cost in costs) for costs in (ours, theirs))
    traffic, traffic_plain = (median(cost.traffic_bytes / cost.tokens for cost in costs) for costs in (ours, theirs))
    return {
        "speedup_time": round(seconds_plain / seconds, 1),
        "speedup_bytes": round(traffic_plain / traffic, 1),
        "ms_per_token": round(1000 * seconds, 2),
        "ms_per_token_plain": round(1000 * seconds_plain, 1),
        "bytes_per_token": round(traffic),
        "bytes_per_token_plain": round(traffic_plain),
        "tokens": median(cost.tokens for cost in ours),
        "tokens_plain": median(cost.tokens for cost in theirs),
    }
