"""Every setting answers every question; each answer is judged and kept at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ssd2.algorithm.collaboration import UserTerms, decode_locally
from ssd2.algorithm.params import MAX_SEED, CollaborationParams, DecodingParams, Seeds
from ssd2.evaluation.experiments import ALPHAS, LAMBDAS
from ssd2.evaluation.scorer import holds
from ssd2.logits.format import LogitsFormat
from ssd2.models.predict import begin_sampler, user_terms
from user_agent.answering.conversation import NOTHING_SAID, Conversation
from user_agent.answering.run import Agent, Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage
from user_agent.tuning.choosing import Outcomes
from user_agent.tuning.questions import TuningQuestion
from user_agent.tuning.recording import RecordedCore, Recording
from user_agent.tuning.stored_answers import StoredAnswers

CONSTANTS = tuple(
    CollaborationParams(lambda_user, a) for lambda_user in LAMBDAS for a in ALPHAS if lambda_user or not a
)
"""λ of the paper's Table 1 with α 0 and 1; at λ = 0 there is no α."""

SETTINGS = (*CONSTANTS, CollaborationParams("auto"))
"""And λ auto, which needs no search."""


Batch = tuple[CollaborationParams, Sequence[int]]
"""A setting, and numbers of tasks that are answered with it at once."""


@dataclass(frozen=True)
class Task:
    """A question with the passages that the user model sees for it."""

    question: TuningQuestion
    passages: Sequence[Passage]


class Judge(Protocol):
    """Gives answers and says whether they are right."""

    def batches(self, due: Mapping[CollaborationParams, Sequence[int]]) -> Iterable[Batch]:
        """All that is due, in the order in which it is answered."""
        ...

    async def right(self, setting: CollaborationParams, numbers: Sequence[int]) -> list[bool]:
        """True if the answers to some tasks are right, by their numbers."""
        ...


@dataclass
class RecordedJudge:
    """Answers on the device, mixed with recordings of the core: nothing is sent.

    The user model sees a task's own question, the core has seen one of the public instructions.

    Attributes:
        tasks: what is asked.
        user_model: θ_user, with its weights.
        recordings: task n is mixed with number n, modulo their count.
        params: as the recordings were made.
        seed: of the device's own draws.
        conversation: before each question: the system prompt, as `user-agent ask` has it.
        batch_size: answers decoded at once.
    """

    tasks: Sequence[Task]
    user_model: UserModel
    recordings: Sequence[Recording]
    params: DecodingParams
    seed: int
    conversation: Conversation = NOTHING_SAID
    batch_size: int = field(default=8)

    def batches(self, due: Mapping[CollaborationParams, Sequence[int]]) -> Iterator[Batch]:
        """Setting by setting: nobody sees in which order a recording is used."""
        for setting, numbers in due.items():
            for start in range(0, len(numbers), self.batch_size):
                yield setting, numbers[start : start + self.batch_size]

    async def right(self, setting: CollaborationParams, numbers: Sequence[int]) -> list[bool]:
        """See `Judge`."""
        answers = await asyncio.to_thread(self._answers, setting, numbers)
        return [holds(a, self.tasks[n].question.expected) for n, a in zip(numbers, answers, strict=True)]

    def _answers(self, setting: CollaborationParams, numbers: Sequence[int]) -> list[str]:
        recordings = [self.recordings[number % len(self.recordings)] for number in numbers]
        draws = [Seeds.reproducible(self.seed + number).sampling for number in numbers]
        seeds = [Seeds(recording.noise_seed, draw) for recording, draw in zip(recordings, draws, strict=True)]
        answers = decode_locally(
            RecordedCore(recordings) if setting.uses_core else None,
            self._terms(setting, numbers),
            setting,
            begin_sampler(self.user_model.config, self.params, seeds),
        )
        return [self.user_model.tokenizer.decode(answer) for answer in answers]

    def _terms(self, setting: CollaborationParams, numbers: Sequence[int]) -> UserTerms | None:
        if not setting.uses_user or self.user_model.model is None:
            return None
        tasks = [self.tasks[number] for number in numbers]
        prompt, said = self.user_model.prompt, self.conversation
        with_docs = [prompt(task.question.text, task.passages, said) for task in tasks]
        without_docs = [prompt(task.question.text, (), said) for task in tasks]
        return user_terms(self.user_model.model, with_docs, without_docs, setting, self.params.self_conditioning)


@dataclass
class AskingJudge:
    """Asks the user's own questions as `user-agent ask` does, once for every setting.

    Each time has noise and draws of its own, and all are asked in an order that follows from the seed. Settings in a
    known order on the same draws would tell a core both: with the draws bracketed at λ = 0, where it knows the
    logits, what the other settings commit says where the user model moved them.

    Attributes:
        tasks: what is asked.
        agent: with a line to the core.
        params: how to decode.
        seed: of the order, and of the decodes; whoever guesses it has both.
        model: name of the core's model, or "".
        logits_format: of the core's logits; None for the best that its provider allows.
        conversation: before each question: the system prompt, as `user-agent ask` has it.
    """

    tasks: Sequence[Task]
    agent: Agent
    params: DecodingParams
    seed: int
    model: str = ""
    logits_format: LogitsFormat | None = None
    conversation: Conversation = NOTHING_SAID

    def batches(self, due: Mapping[CollaborationParams, Sequence[int]]) -> list[Batch]:
        """One at a time, shuffled over settings and questions alike."""
        pairs = [(setting, number) for setting, numbers in due.items() for number in numbers]
        pairs.sort(key=lambda pair: _keyed(self.seed, "order", *pair))
        return [(setting, [number]) for setting, number in pairs]

    async def right(self, setting: CollaborationParams, numbers: Sequence[int]) -> list[bool]:
        """See `Judge`.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        return [await self._is_right(setting, number) for number in numbers]

    async def _is_right(self, setting: CollaborationParams, number: int) -> bool:
        task, seeds = self.tasks[number], pass_seeds(self.seed, setting, number)
        question = Question(
            task.question.text,
            task.passages,
            setting,
            self.params,
            seeds,
            self.model,
            self.logits_format,
            conversation=self.conversation,
            core_conversation=self.conversation,
        )
        return holds((await self.agent.answer(question)).text, task.question.expected)


def pass_seeds(seed: int, setting: CollaborationParams, number: int) -> Seeds:
    """Noise and draws for one question at one setting, like no other's of the run."""
    return Seeds.reproducible(_keyed(seed, "pass", setting, number))


def _keyed(seed: int, purpose: str, setting: CollaborationParams, number: int) -> int:
    """A number that nobody without the seed can tell from a random one."""
    text = f"slingshot/tune/{purpose}/{seed}/{setting.lambda_user}/{setting.alpha}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % MAX_SEED


async def sweep(
    judge: Judge, count: int, kept: StoredAnswers, on_progress: Callable[[CollaborationParams, int], None]
) -> Outcomes:
    """Ask all that is not kept yet.

    Args:
        judge: gives the answers.
        count: of the tasks.
        kept: what an earlier run has, and what this one adds.
        on_progress: told the setting, and how many of its answers have come since the last call.

    Raises:
        SlingshotError: if an answer fails; all before it are kept.
    """
    due = {setting: [n for n in range(count) if kept.right(setting, n) is None] for setting in SETTINGS}
    for setting, numbers in due.items():
        on_progress(setting, count - len(numbers))
    for setting, batch in judge.batches(due):
        kept.add(setting, batch, await judge.right(setting, batch))
        on_progress(setting, len(batch))
    return {setting: [bool(kept.right(setting, number)) for number in range(count)] for setting in SETTINGS}
