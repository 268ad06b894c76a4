"""From a request to an answer: whole or block by block, and given up as soon as nobody waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import Request

from ssd2.algorithm.params import DecodingParams
from ssd2.errors import SlingshotError
from ssd2.models.chat import THINK
from user_agent.answering.answer import CommittedBlock, Observer
from user_agent.answering.request import AnswerRequest
from user_agent.answering.service import Answered, Answering
from user_agent.answering.told import told_with
from user_agent.answering.traces import conflicts_json, fit_json, passage_json
from user_agent.api.errors import ApiError, error_body
from user_agent.api.openai_types import Generation, SlingshotAnswer, Told, Warned
from user_agent.api.state import state_of

POLL_S = 0.2
"""How often it is looked whether a client is still there."""

DONE = "data: [DONE]\n\n"
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a character decodes to whose last tokens are in the next block."""


async def settings_of(body: Generation, client: Request) -> dict[str, Any]:
    """Return the settings that a request has, with the documents of the collections that it names.

    Raises:
        ApiError: if they contradict each other.
    """
    given = body.given()
    if body.slingshot and (collections := body.slingshot.collections) is not None:
        library = state_of(client).stores.documents
        given["documents"] = await asyncio.to_thread(library.documents_of, collections)
    return given


async def whole(client: Request, answering: Answering, request: AnswerRequest, trace_id: str) -> Answered:
    """An answer for a client that waits for all of it.

    Raises:
        SlingshotError: of the kind that says what went wrong.
        ApiError: if the client has gone; nobody reads it.
    """
    answer = answering.start(request, trace_id)
    _end_with(client, answer)
    try:
        await asyncio.wait({answer})
    finally:
        answer.cancel()
    return _result(answer)


def _end_with(client: Request, answer: asyncio.Task[Answered]) -> None:
    """Cancel an answer as soon as its client has gone: until a block is sent nothing else would show it."""
    leaving = asyncio.create_task(_leaving(client))
    leaving.add_done_callback(lambda _: answer.cancel())
    answer.add_done_callback(lambda _: leaving.cancel())


def _result(answer: asyncio.Task[Answered]) -> Answered:
    if answer.cancelled():
        raise ApiError(400, "client_disconnected", "the client has disconnected; send the request again")
    return answer.result()


async def _leaving(client: Request) -> None:
    while not await client.is_disconnected():  # noqa: ASYNC110 - Starlette tells it only when asked
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True)
class Reading:
    """Progress of the user model before the first block: tokens of long prompts that it has read, and all."""

    done: int
    total: int


class _Blocks(Observer):
    """Hands on the answer so far."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.texts: asyncio.Queue[str | Reading | None] = asyncio.Queue()

    def began(self, params: DecodingParams) -> None:
        """See `Observer`."""
        del params
        self.has_begun.set()

    def end(self) -> None:
        """There are no more."""
        self.has_begun.set()
        self.texts.put_nowait(None)

    def reading(self, done: int, total: int) -> None:
        """See `Observer`."""
        self.texts.put_nowait(Reading(done, total))

    def committed(self, seen: CommittedBlock) -> bool:
        """See `Observer`."""
        self.texts.put_nowait(seen.text)
        return True


class Streaming:
    """One answer, block by block."""

    def __init__(self, client: Request, answering: Answering, request: AnswerRequest, trace_id: str) -> None:
        """Begin.

        Raises:
            AgentBusy: if too many are waiting.
        """
        self._stop, self._blocks = (*request.stop_texts, THINK), _Blocks()
        self._answer = answering.start(request, trace_id, self._blocks)
        self._answer.add_done_callback(lambda _: self._blocks.end())
        _end_with(client, self._answer)

    async def begun(self) -> Streaming:
        """Wait until the answer has begun, so that what stands in its way gets a status of its own.

        Raises:
            SlingshotError: of the kind that says what went wrong.
            ApiError: if the client has gone; nobody reads it.
        """
        await self._blocks.has_begun.wait()
        if self._answer.done():
            _result(self._answer)
        return self

    async def deltas(self) -> AsyncIterator[str | Reading]:
        """Yield the text that each block adds, and before the first how far long prompts are read.

        Leaving early ends the answer.

        Raises:
            SlingshotError: of the kind that says what went wrong.
        """
        sent = 0
        try:
            while (text := await self._blocks.texts.get()) is not None:
                if isinstance(text, Reading):
                    yield text
                elif (end := settled(text, self._stop)) > sent:
                    yield text[sent:end]
                    sent = end
            if rest := _result(self._answer).text[sent:]:
                yield rest
        finally:
            self._answer.cancel()

    @property
    def answered(self) -> Answered:
        """The answer, behind the last delta."""
        return self._answer.result()


def settled(text: str, stop: Sequence[str]) -> int:
    """Count the characters of a text that can be sent: no broken one, and none that may begin a stop text."""
    end = len(text.rstrip(INCOMPLETE))
    begun = [size for one in stop for size in range(1, min(len(one), end + 1)) if text[:end].endswith(one[:size])]
    return end - max(begun, default=0)


async def events(chunks: AsyncIterator[dict[str, Any] | Reading], path: str) -> AsyncIterator[str]:
    """Yield chunks as server-sent events; a failure is the last one, in the terms of the route at `path`.

    Progress is a comment, which clients of OpenAI's routes skip and connections stay open by.
    """
    try:
        async for chunk in chunks:
            yield _comment(chunk) if isinstance(chunk, Reading) else _event(chunk)
        yield DONE
    except (SlingshotError, ApiError) as error:
        yield _event(error_body(error, path)[1])


def _comment(progress: Reading) -> str:
    return f": read {progress.done} of {progress.total} tokens\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def slingshot_answer(answered: Answered, trace_id: str, warned: Sequence[Warned] = ()) -> SlingshotAnswer:
    """Fields of an answer beyond OpenAI's."""
    question = answered.question
    return SlingshotAnswer(
        trace=trace_id,
        lambda_user=question.collaboration.lambda_user,
        alpha=question.collaboration.alpha,
        citations=[passage_json(passage) for passage in question.passages],
        conflicts=conflicts_json(answered.conflicts),
        **fit_json(question),
        has_crossed=answered.has_crossed,
        told=Told(**told) if (told := told_with(answered)) else None,
        tokens=[asdict(token) for token in answered.answer.tokens],
        figures=answered.answer.figures,
        warnings=list(warned),
    )
