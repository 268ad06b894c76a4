"""Answers as a service: one user model, one line to the core, many who ask."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any, Literal, TypeAlias

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.errors import CoreError, InvalidParameter, SlingshotError
from ssd2.logits.format import LogitsFormat
from ssd2.models.control import Control
from ssd2.wire.codec import ModelCard
from user_agent.answering.answer import Answer, AnswerToken, CommittedBlock, Conflict, Observer, ProjectedBlock
from user_agent.answering.conversation import NOTHING_SAID, Conversation
from user_agent.answering.crossed_words import crossed_words
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerRequest, AnswerSettings
from user_agent.answering.run import Agent, Question
from user_agent.answering.settings import ServiceSettings
from user_agent.answering.traces import Trace, Traces, fit_json, passage_json
from user_agent.answering.tuned_defaults import collaboration_of, tuned_with
from user_agent.answering.user_model import NOTHING_FOUND, Fitted, UserModel, given_at_zero
from user_agent.documents.passage import NothingFound, Passage
from user_agent.errors import AgentBusy
from user_agent.line.client import CoreClient
from user_agent.store.answers import AnswerRecords, CrossedWords, State
from user_agent.store.crossed import Crossed, Notes
from user_agent.store.ledger import Tally, tracing
from user_agent.store.tuned import Choice

KEPT_S = 600.0
"""Seconds that a prompt's keys and values are kept unused: long enough for the next question."""

Search: TypeAlias = Callable[[str, Sequence[int] | None], Sequence[Passage]]
"""Passages for a question, the best first, from all documents or from those with the given ids."""


@dataclass(frozen=True)
class Answered:
    """An answer, and how it came about.

    Attributes:
        answer: with its tokens; of a stopped one all tokens up to the end of the last block.
        text: of it, without the text that stopped it and what is behind.
        question: as it was put to the models, with what fitted and what did not.
        tuned: where λ or α comes from, if either is as tuned.
        prompt_tokens: that the user model read; at λ = 0 the core.
        finish_reason: "stop" or "length".
        crossed: the beginning of the text that the core was sent; "" at λ = 1.
        sent_to: addresses that something was sent to, HOST:PORT; none at λ = 1.
    """

    answer: Answer
    text: str
    question: Question
    tuned: Choice | None
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]
    crossed: str
    sent_to: Sequence[str] = ()

    @property
    def crossed_words(self) -> list[CrossedWords]:
        """Words of passages and private context that crossed with the answer."""
        question = self.question
        if not question.collaboration.uses_core:
            return []
        return quoted_words(self.answer.tokens, question)

    @property
    def has_crossed(self) -> bool:
        """True if the core has all of the answer; only then a later turn shows all of it to the core."""
        return self.crossed == self.text

    @property
    def conflicts(self) -> list[Conflict] | None:
        """Places in the text about which passages disagree; None where tokens are not cited."""
        conflicts, shown = self.answer.conflicts, len(self.tokens)
        return None if conflicts is None else [one for one in conflicts if one.position < shown]

    @property
    def tokens(self) -> list[AnswerToken]:
        """Tokens of the text; the last one may be cut."""
        whole = "".join(token.text for token in self.answer.tokens)
        left = len(whole) - len(whole.lstrip()) + len(self.text)
        tokens = []
        for token in self.answer.tokens:
            if left > 0:
                tokens.append(replace(token, text=token.text[:left]))
            left -= len(token.text)
        return tokens


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


def check(settings: AnswerSettings, user_model: UserModel) -> None:
    """Check that an answer can be made with these settings.

    Raises:
        InvalidParameter: if there is no such decode.
        PromptTooLong: if the model has no room for any question.
    """
    user_model.limited("", decoding_for(settings, user_model.config))


class Answering:
    """Answers questions, some at a time; others wait, and still others are sent away."""

    def __init__(
        self,
        settings: ServiceSettings,
        user_model: UserModel,
        client: CoreClient | None,
        search: Search,
        crossed: Crossed,
        traces: Traces,
        control: Control | None = None,
        records: AnswerRecords | None = None,
    ) -> None:
        """Make a service.

        Args:
            settings: of answers that do not say otherwise, and of the service.
            user_model: θ_user; without weights it serves λ = 0 only.
            client: the line to the core; None serves λ = 1 only.
            search: finds passages.
            crossed: takes up what of each answer did not cross, and keeps it from crossing later.
            traces: take up what happens in each answer.
            control: steers every answer; None steers none.
            records: say of each answer that sends something what was asked and which words of documents crossed.

        Raises:
            SlingshotError: see `check`.
        """
        check(settings, user_model)
        self._settings, self._user_model, self._client, self._search = settings, user_model, client, search
        self._crossed, self._control, self._records = crossed, control, records
        self._card_seen: ModelCard | None = None
        self._core_takes: int | None = None  # tokens of a question, once the core has said it
        self.traces, self.figures = traces, Figures()
        self._at_work = asyncio.Semaphore(settings.max_answers)
        self._admitted = 0
        self._looks_again: asyncio.TimerHandle | None = None

    def reconfigure(self, settings: ServiceSettings, user_model: UserModel, client: CoreClient | None) -> None:
        """Take up other settings, checked before, or another model or line, from the next answer on."""
        if user_model is not self._user_model:
            self._user_model.forget_prompts()
        self._settings, self._user_model, self._client, self._core_takes = settings, user_model, client, None
        self._card_seen = None

    def request(self, question: str, **given: Any) -> AnswerRequest:
        """Ask a question with the settings of the service, but for those that are given."""
        return self._settings.request(question, **given)

    def forget_prompts(self) -> None:
        """Drop what the user model keeps of earlier prompts, in any thread: a document or a conversation is gone."""
        self._user_model.forget_prompts()

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

    @property
    def card_seen(self) -> ModelCard | None:
        """Card of the core's model, if it has been asked for; nothing is sent."""
        return self._card_seen

    async def card(self) -> ModelCard | None:
        """Ask the core for the card of its model; None without a core.

        Raises:
            SlingshotError: if it does not answer.
        """
        return await self._card(self._settings.model)

    async def _card(self, model: str) -> ModelCard | None:
        if self._client is None:
            return None
        client, settings = self._client, self._settings
        card = await client.model_card(model, self._user_model.config.family)
        if (client, settings, model) == (self._client, self._settings, settings.model):  # the core that is asked next
            self._core_takes, self._card_seen = card.max_prompt_tokens, card
        return card

    async def passages_for(self, request: AnswerRequest) -> Fitted:
        """Choose the passages that the answer to a request would be given. Nothing is sent.

        Raises:
            PromptTooLong: if the question does not fit.
        """
        params = decoding_for(request, self._user_model.config)
        said = NOTHING_SAID.instructed(request.system_prompt).laid_out(request.answer_layout)
        kept, limited = await asyncio.to_thread(self._kept, request, said, params, None)
        if request.lambda_user == 0:
            return given_at_zero(await asyncio.to_thread(self._search, request.question, request.document_ids))
        return await asyncio.to_thread(self._passages_for, request, limited, kept)

    @property
    def answers(self) -> int:
        """Number of answers that are computed or wait."""
        return self._admitted

    def start(self, request: AnswerRequest, trace_id: str, observer: Observer | None = None) -> asyncio.Task[Answered]:
        """Take up one question; cancelling the task gives its answer up.

        Args:
            request: the question, and how to answer it.
            trace_id: name of its trace.
            observer: sees blocks and timesteps, beside the trace.

        Returns:
            Its answer to be, or a SlingshotError of the kind that says what went wrong; the trace ends with it.

        Raises:
            AgentBusy: if too many are waiting.
            InvalidParameter: if it asks for other models than those that are loaded.
        """
        if request.pair != self._settings.pair:
            raise InvalidParameter(
                f"this agent answers with {_pair_words(self._settings.pair)}, not with {_pair_words(request.pair)}; "
                "leave the pair out of the request, or change it in the agent's settings",
                parameter="pair",
            )
        at_once, waiting = self._settings.max_answers, self._settings.max_waiting
        if self._admitted >= at_once + waiting:
            raise AgentBusy(
                f"this agent is busy: it computes {at_once} answers at a time and queues {waiting}; "
                "ask again in a moment"
            )
        trace = self.traces.begin(trace_id, self._user_model.tokenizer)
        task = asyncio.create_task(self._in_turn(request, trace, observer))
        self._admitted += 1
        task.add_done_callback(lambda done: self._done(done, trace))
        return task

    def _done(self, task: asyncio.Task[Answered], trace: Trace) -> None:
        """Count the end of a task, also where it was cancelled before it ever ran."""
        self._admitted -= 1
        task.get_loop().call_later(KEPT_S, self._forget_unused, task.get_loop())
        if task.cancelled():
            code, message = "stopped", "the answer was stopped"
        elif isinstance(error := task.exception(), SlingshotError):
            code, message = error.code, str(error)
        elif error:
            code, message = "internal_error", "the agent failed on this answer; see its log"
        else:
            self.figures.add(task.result().answer)
            return
        self.figures.ends[code] += 1
        trace.failed(code, message)

    def _forget_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget the prompts of the present model that nobody asked about for long, and look again for the rest.

        An answer that was stopped gives its own back only behind the part that it reads.
        """
        cache = self._user_model.prompt_cache
        due_s = cache.forget_unused(KEPT_S) if cache else None
        if self._looks_again:
            self._looks_again.cancel()
        self._looks_again = None if due_s is None else loop.call_later(due_s, self._forget_unused, loop)

    async def _in_turn(self, request: AnswerRequest, trace: Trace, observer: Observer | None) -> Answered:
        async with self._at_work:
            with tracing(trace.id, trace.departed) as tally:
                ears = _Ears([trace, *([observer] if observer else [])], request.stop_texts, self._crossed.notes())
                record = _Record(self._records, trace.id, ears)
                try:
                    answered = await self._answer(request, trace, ears, tally, record)
                    record.state = "whole"
                    return answered
                finally:  # also of an answer that was stopped or failed midway, which its reader has seen
                    ears.end()
                    record.end()

    async def _answer(
        self, request: AnswerRequest, trace: Trace, ears: _Ears, tally: Tally, record: _Record
    ) -> Answered:
        collaboration, tuned = await self._collaboration(request)
        question = await self._question(request, collaboration)
        trace.add(
            "answer.start",
            instruction=request.question,
            passages=[passage_json(passage) for passage in question.passages],
            **fit_json(question),
            lambda_user=collaboration.lambda_user,
            alpha=collaboration.alpha,
            block_size=question.params.block_size,
        )
        client = self._client if collaboration.uses_core else None
        ears.has_core = client is not None
        if client:
            await asyncio.to_thread(record.begin, question)
        answer = await Agent(self._user_model, client, self._control).answer(question, ears)
        answer = replace(answer, bytes_up=tally.bytes_up, bytes_down=tally.bytes_down)  # as the ledger counts
        trace.ended(answer)
        text = answer.text if ears.stop_at is None else answer.text[: ears.stop_at].rstrip()
        return Answered(
            answer=answer,
            text=text,
            question=question,
            tuned=tuned,
            prompt_tokens=self._prompt_tokens(question),
            finish_reason="length" if answer.end == "length" else "stop",
            crossed=_common(text, ears.crossed),
            sent_to=tuple(tally.destinations),
        )

    async def _question(self, request: AnswerRequest, collaboration: CollaborationParams) -> Question:
        """Complete a request with what the models and the documents say."""
        era = self._user_model.era
        asked_params = decoding_for(request, self._user_model.config)
        is_known = collaboration.uses_core and request.model == self._settings.model
        core_takes = self._core_takes if is_known else None
        said = await asyncio.to_thread(Conversation.of, request.history, self._crossed.part_of)
        said = said.instructed(request.system_prompt).laid_out(request.answer_layout)
        if said.turns and collaboration.uses_core and core_takes is None:
            card = await self._card(request.model)  # whose limit says which turns are left out
            core_takes = card.max_prompt_tokens if card else None
        kept, params = await asyncio.to_thread(self._kept, request, said, asked_params, core_takes)
        fitted = Fitted(conversation=kept, private_context_fit="left out" if request.private_context.strip() else None)
        if collaboration.uses_user:
            fitted = await asyncio.to_thread(self._passages_for, request, params, kept)
        return Question(
            instruction=request.question,
            passages=fitted.passages,
            collaboration=collaboration,
            params=params,
            seeds=Seeds.fresh() if request.seed is None else Seeds.reproducible(request.seed),
            model=request.model,
            logits_format=None if request.logits is None else LogitsFormat.parse(request.logits),
            speculation=request.speculation,
            left_out=fitted.left_out,
            asked_tokens=asked_params.max_tokens,
            conversation=fitted.conversation,
            core_conversation=kept,
            left_out_turns=len(said.turns) - len(fitted.conversation.turns),
            private_context=fitted.private_context,
            private_context_fit=fitted.private_context_fit,
            era=era,
            settings=request,
            cites_tokens=request.cite == "tokens",
            nothing_found=fitted.why_none == NOTHING_FOUND,
            penalties=request.penalties,
        )

    def _kept(
        self, request: AnswerRequest, said: Conversation, params: DecodingParams, core_takes: int | None
    ) -> tuple[Conversation, DecodingParams]:
        """Keep the turns that fit, and the longest answer that fits behind them."""
        user_model = self._user_model
        kept = NOTHING_SAID
        if user_model.tokenizer.takes_conversations:
            kept = user_model.kept(request.question, said, params, core_takes)
        return kept, user_model.limited(request.question, params, core_takes, kept)

    def _passages_for(self, request: AnswerRequest, params: DecodingParams, conversation: Conversation) -> Fitted:
        found = self._found(request, conversation) if request.document_ids != () else []
        fitted = self._user_model.fitting(
            request.question, found, params.max_answer_tokens, conversation, request.private_context
        )
        if found or request.document_ids == ():
            return fitted
        is_unrelated = isinstance(self._search(request.question, request.document_ids), NothingFound)
        return replace(fitted, why_none=NOTHING_FOUND) if is_unrelated else fitted

    # See docs/decisions/053-follow-up-questions.md.
    def _found(self, request: AnswerRequest, conversation: Conversation) -> list[Passage]:
        """Search for a question together with the turns before it, then for the earlier questions.

        "And how heavy is it?" says little alone: its words stand in documents of any subject.
        """
        turns = conversation.turns[::-1]
        asked = [request.question, *(turn.question for turn in turns)]

        def search(words: str) -> list[Passage]:
            return list(self._search(words, request.document_ids))

        if not turns:
            return search(request.question)
        together = search(" ".join(asked))
        subject = {passage.source for passage in together}
        alone = sorted(search(request.question), key=lambda passage: passage.source not in subject)
        named = search(_new_words(turns[0].answer, asked))  # whom "her" means
        in_turns = chain.from_iterable(zip_longest(named, together, alone))  # a new subject's passages come early too
        earlier = chain.from_iterable(map(search, asked[1:]))
        return list(dict.fromkeys(passage for passage in (*in_turns, *earlier) if passage))

    async def _collaboration(self, request: AnswerRequest) -> tuple[CollaborationParams, Choice | None]:
        """Complete λ and α; the core is asked for its model only where a choice for it may have been saved."""
        lambda_user, alpha, measured = request.lambda_user, request.alpha, self._settings.measured
        if lambda_user is not None and (alpha is not None or lambda_user in (0, 1)):
            return collaboration_of(lambda_user, alpha, None, measured), None
        tuned = await asyncio.to_thread(tuned_with, self._settings.user_folder)
        card = await self._card(request.model) if tuned else None
        choice = next((choice for choice in tuned if card and choice.core_sha256 == card.model_sha256), None)
        return collaboration_of(lambda_user, alpha, choice, measured), choice

    def _prompt_tokens(self, question: Question) -> int:
        if question.collaboration.uses_user:
            given = (question.instruction, question.passages, question.conversation, question.private_context)
            return len(self._user_model.prompt(*given))
        return len(self._user_model.core_prompt(question.instruction, question.core_conversation))


def _new_words(answer: str, asked: Sequence[str]) -> str:
    """Return the words of an answer that no question has."""
    known = {word for question in asked for word in _words(question)}
    return " ".join(word for word in _words(answer) if word not in known)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _common(text: str, other: str) -> str:
    """Return the beginning that two texts share."""
    unlike = (at for at, (one, another) in enumerate(zip(text, other, strict=False)) if one != another)
    return text[: next(unlike, min(len(text), len(other)))]


class _Ears(Observer):
    """Several observers as one, and an end where a text to stop at comes up."""

    def __init__(self, observers: Sequence[Observer], stop: Sequence[str], notes: Notes) -> None:
        self._observers, self._stop, self._notes = observers, stop, notes
        self.stop_at: int | None = None
        self.has_core = False
        self.text = self.crossed = ""  # of the answer so far; what the core has of it
        self.tokens: list[AnswerToken] = []

    def began(self, params: DecodingParams) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.began(params)

    def waiting(self, error: CoreError, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.waiting(error, seconds)

    def reading(self, done: int, total: int) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.reading(done, total)

    def projected(self, seen: ProjectedBlock) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.projected(seen)

    def committed(self, seen: CommittedBlock) -> bool:
        """See `Observer`."""
        if self.has_core:
            self.crossed = self.text  # a block is sent with the next one's first timestep, so the last one may not be
        self.text = seen.text
        self.tokens += seen.tokens
        self._notes.add(self.text, self.crossed)  # before anybody is given it, who may send it back at once
        found = [at for text in self._stop if (at := seen.text.find(text)) >= 0]
        if found:
            self.stop_at = min(found)
            seen = replace(seen, text=seen.text[: self.stop_at].rstrip())
        goes_on = [observer.committed(seen) for observer in self._observers]
        return all(goes_on) and self.stop_at is None

    def end(self) -> None:
        """Note the end of the answer."""
        if self.text:
            self._notes.end(self.text, self.crossed)


class _Record:
    """Record of one answer, from before its question is sent to its end, whichever that is."""

    def __init__(self, records: AnswerRecords | None, trace: str, ears: _Ears) -> None:
        self._records, self._trace, self._ears = records, trace, ears
        self._question: Question | None = None
        self.state: State = "stopped"

    def begin(self, question: Question) -> None:
        """Note the question.

        Raises:
            StoreUnreadable: if it cannot be noted; then it must not be sent.
        """
        if self._records:
            self._records.begin(self._trace, question.instruction)
            self._question = question

    def end(self) -> None:
        """Note what of the documents was in the blocks that were made."""
        if self._records and self._question:
            words = quoted_words(self._ears.tokens, self._question)
            self._records.end(self._trace, self._question.instruction, words, self.state)


def quoted_words(tokens: Sequence[AnswerToken], question: Question) -> list[CrossedWords]:
    """Return the words of passages and private context in some tokens of an answer."""
    if not question.collaboration.uses_user:
        return []
    asked = [question.instruction, *(turn.question for turn in question.conversation.turns)]
    return crossed_words(tokens, question.passages, question.private_context, asked)


def _pair_words(name: str) -> str:
    return f"the pair {name}" if name else "models of no pair"


def new_id(kind: str) -> str:
    """An id that nobody can guess, such as chatcmpl-5f0e…; the kind stands before the dash."""
    return f"{kind}-{secrets.token_hex(12)}"
