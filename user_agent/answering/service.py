"""Answers as a service: one user model, one line to the core, many who ask."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreError, SlingshotError
from ssd2.logits.format import LogitsFormat
from ssd2.wire.codec import ModelCard
from user_agent.answering.answer import Answer, CommittedBlock, Observer, ProjectedBlock
from user_agent.answering.decoding import decoding_for
from user_agent.answering.run import Agent, Question
from user_agent.answering.traces import Trace, Traces, fit_json, passage_json
from user_agent.answering.tuned_defaults import collaboration_of, tuned_with
from user_agent.answering.user_model import Fitted, UserModel, given_at_zero
from user_agent.config import AgentConfig
from user_agent.documents.passage import Passage
from user_agent.errors import AgentBusy
from user_agent.line.client import CoreClient
from user_agent.store.ledger import tracing

Search: TypeAlias = Callable[[str, Sequence[int] | None], Sequence[Passage]]
"""Passages for a question, the best first, from all documents or from those with the given ids."""


@dataclass(frozen=True)
class Asked:
    """One question to the service; what is None is as the agent is configured.

    Attributes:
        instruction: w_inst.
        lambda_user: λ.
        alpha: α.
        steps: most timesteps of a block.
        max_tokens: longest answer.
        temperature: 0 for the greedy projection.
        top_p: nucleus mass.
        seed: for an answer that can be repeated; a guessed one replays the device's draws.
        documents: ids of those to look in; None for all, empty for none.
        logits: format of the core's logits.
        stop: texts that end the answer.
    """

    instruction: str
    lambda_user: float | None = None
    alpha: float | None = None
    steps: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    documents: Sequence[int] | None = None
    logits: str | None = None
    stop: Sequence[str] = ()


@dataclass(frozen=True)
class Answered:
    """What the service gives back.

    Attributes:
        answer: with its tokens; of a stopped one all tokens up to the end of the last block.
        text: of it, without the text that stopped it and what is behind.
        question: as it was put to the models, with what fitted and what did not.
        prompt_tokens: that the user model read; at λ = 0 the core.
        finish_reason: "stop" or "length".
    """

    answer: Answer
    text: str
    question: Question
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]


@dataclass
class Figures:
    """Sums over all answers since the start.

    Attributes:
        ends: how many ended how: eos, length, observer, stopped, or the code of an error.
        tokens: of the answers.
        timesteps: decoded.
        seconds: that they took.
    """

    ends: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    timesteps: int = 0
    seconds: float = 0.0

    def add(self, answer: Answer) -> None:
        """One more that was given."""
        self.ends[answer.end] += 1
        self.tokens += len(answer.tokens)
        self.timesteps += answer.timesteps
        self.seconds += answer.seconds


def check(config: AgentConfig, user_model: UserModel) -> None:
    """Check that an answer can be made as configured.

    Raises:
        InvalidParameter: if there is no such decode.
        PromptTooLong: if the model has no room for any question.
    """
    user_model.limited("", decoding_for(user_model.config, steps=config.steps, max_tokens=config.max_tokens))


class Answering:
    """Answers questions, some at a time; others wait, and still others are sent away."""

    def __init__(
        self, config: AgentConfig, user_model: UserModel, client: CoreClient | None, search: Search, traces: Traces
    ) -> None:
        """Make a service.

        Args:
            config: of the agent.
            user_model: with weights.
            client: the line to the core; None answers λ = 1 alone.
            search: finds passages.
            traces: take up what happens in each answer.

        Raises:
            SlingshotError: see `check`.
        """
        check(config, user_model)
        self._config, self._user_model, self._client, self._search = config, user_model, client, search
        self._core_takes: int | None = None  # tokens of a question, once the core has said it
        self.traces, self.figures = traces, Figures()
        self._at_work = asyncio.Semaphore(config.max_answers)
        self._admitted = 0

    def reconfigure(self, config: AgentConfig, client: CoreClient | None) -> None:
        """Take up other settings, checked before, or another line, from the next answer on."""
        self._config, self._client, self._core_takes = config, client, None

    @property
    def user_model(self) -> UserModel:
        """θ_user."""
        return self._user_model

    async def ready(self) -> None:
        """Wait until there is a connection to the core, if one is needed.

        Raises:
            CoreUnavailable: if nothing answers at its address.
        """
        if self._client:
            await self._client.connect()

    async def card(self) -> ModelCard | None:
        """What the core says of its model, asked for anew; None without a core.

        Raises:
            SlingshotError: if it does not answer.
        """
        if self._client is None:
            return None
        client, config = self._client, self._config
        card = await client.model_card(config.model, self._user_model.config.family)
        if (client, config) == (self._client, self._config):  # else it is not of the core that is asked from now on
            self._core_takes = card.max_prompt_tokens
        return card

    async def passages_for(self, instruction: str, documents: Sequence[int] | None) -> Fitted:
        """Choose the passages that an answer as configured would be given for a question. Nothing is sent.

        Raises:
            PromptTooLong: if the question does not fit.
        """
        asked, config = Asked(instruction, documents=documents), self._config
        params = decoding_for(self._user_model.config, steps=config.steps, max_tokens=config.max_tokens)
        limited = await asyncio.to_thread(self._user_model.limited, instruction, params)
        if config.lambda_user == 0:
            return given_at_zero(await asyncio.to_thread(self._search, instruction, documents))
        return await asyncio.to_thread(self._passages_for, asked, limited)

    @property
    def answers(self) -> int:
        """That are computed or wait."""
        return self._admitted

    def start(self, asked: Asked, trace_id: str, observer: Observer | None = None) -> asyncio.Task[Answered]:
        """Take up one question; whoever wants its answer no more cancels the task.

        Args:
            asked: the question.
            trace_id: what its trace is called.
            observer: told of blocks and timesteps, beside the trace.

        Returns:
            Its answer to be, or a SlingshotError of the kind that says what went wrong; the trace ends with it.

        Raises:
            AgentBusy: if too many are waiting.
        """
        if self._admitted >= self._config.max_answers + self._config.max_waiting:
            raise AgentBusy(
                f"this agent is busy: it computes {self._config.max_answers} answers at a time and queues "
                f"{self._config.max_waiting}; ask again in a moment"
            )
        trace = self.traces.begin(trace_id, self._user_model.tokenizer)
        task = asyncio.create_task(self._in_turn(asked, trace, observer))
        self._admitted += 1
        task.add_done_callback(lambda done: self._done(done, trace))
        return task

    def _done(self, task: asyncio.Task[Answered], trace: Trace) -> None:
        """Also where the task was cancelled before it ever ran."""
        self._admitted -= 1
        if task.cancelled():
            code, message = "stopped", "the answer was stopped"
        elif isinstance(error := task.exception(), SlingshotError):
            code, message = error.code, str(error)
        elif error:
            code, message = "internal_error", "the agent failed on this answer; its log says how"
        else:
            self.figures.add(task.result().answer)
            return
        self.figures.ends[code] += 1
        trace.failed(code, message)

    async def _in_turn(self, asked: Asked, trace: Trace, observer: Observer | None) -> Answered:
        async with self._at_work:
            with tracing(trace.id, trace.departed):
                return await self._answer(asked, trace, _Ears([trace, *([observer] if observer else [])], asked.stop))

    async def _answer(self, asked: Asked, trace: Trace, ears: _Ears) -> Answered:
        question = await self._question(asked)
        collaboration = question.collaboration
        trace.add(
            "answer.start",
            instruction=asked.instruction,
            passages=[passage_json(passage) for passage in question.passages],
            **fit_json(question),
            lambda_user=collaboration.lambda_user,
            alpha=collaboration.alpha,
            steps=question.params.steps,
            block_size=question.params.block_size,
        )
        answer = await Agent(self._user_model, self._client if collaboration.uses_core else None).answer(question, ears)
        trace.ended(answer)
        text = answer.text if ears.stop_at is None else answer.text[: ears.stop_at].rstrip()
        return Answered(
            answer=answer,
            text=text,
            question=question,
            prompt_tokens=self._prompt_tokens(question),
            finish_reason="length" if answer.end == "length" else "stop",
        )

    async def _question(self, asked: Asked) -> Question:
        config, model = self._config, self._user_model
        collaboration = await self._collaboration(asked)
        asked_params = decoding_for(
            model.config,
            steps=asked.steps or config.steps,
            max_tokens=asked.max_tokens or config.max_tokens,
            top_p=asked.top_p,
            temperature=asked.temperature or None,
            projection="greedy" if asked.temperature == 0 else None,
        )
        core_takes = self._core_takes if collaboration.uses_core else None
        params = await asyncio.to_thread(model.limited, asked.instruction, asked_params, core_takes)
        fitted = Fitted()
        if collaboration.uses_user and asked.documents != ():
            fitted = await asyncio.to_thread(self._passages_for, asked, params)
        return Question(
            asked.instruction,
            fitted.passages,
            collaboration,
            params,
            Seeds.fresh() if asked.seed is None else Seeds.reproducible(asked.seed),
            config.model,
            None if asked.logits is None else LogitsFormat.parse(asked.logits),
            config.speculation,
            fitted.left_out,
            asked_params.max_tokens,
        )

    def _passages_for(self, asked: Asked, params: DecodingParams) -> Fitted:
        found = self._search(asked.instruction, asked.documents)
        return self._user_model.fitting(asked.instruction, found, params.max_answer_tokens)

    async def _collaboration(self, asked: Asked) -> CollaborationParams:
        """λ and α as asked, as configured, as tuned for the two models, or built in."""
        lambda_user = self._config.lambda_user if asked.lambda_user is None else asked.lambda_user
        alpha = self._config.alpha if asked.alpha is None else asked.alpha
        if lambda_user is not None and (alpha is not None or lambda_user in (0, 1)):
            return collaboration_of(lambda_user, alpha, None)
        tuned = await asyncio.to_thread(tuned_with, self._config.user_model)
        card = await self.card() if tuned else None  # the core is asked only where the answer matters
        choice = next((choice for choice in tuned if card and choice.core_sha256 == card.model_sha256), None)
        return collaboration_of(lambda_user, alpha, choice)

    def _prompt_tokens(self, question: Question) -> int:
        texts = [passage.text for passage in question.passages] if question.collaboration.uses_user else []
        bos = self._user_model.config.bos_token_id
        return len(self._user_model.tokenizer.encode_prompt(question.instruction, texts, bos_token_id=bos))


class _Ears(Observer):
    """Several observers as one, and an end where a text to stop at comes up."""

    def __init__(self, observers: Sequence[Observer], stop: Sequence[str]) -> None:
        self._observers, self._stop = observers, stop
        self.stop_at: int | None = None

    def began(self) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.began()

    def waiting(self, error: CoreError, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.waiting(error, seconds)

    def projected(self, seen: ProjectedBlock) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.projected(seen)

    def committed(self, seen: CommittedBlock) -> bool:
        """See `Observer`."""
        found = [at for text in self._stop if (at := seen.text.find(text)) >= 0]
        if found:
            self.stop_at = min(found)
            seen = replace(seen, text=seen.text[: self.stop_at].rstrip())
        goes_on = [observer.committed(seen) for observer in self._observers]
        return all(goes_on) and self.stop_at is None


def new_id(kind: str) -> str:
    """An id that nobody can guess, such as chatcmpl-5f0e…; the kind stands before the dash."""
    return f"{kind}-{secrets.token_hex(12)}"
