"""POST /v1/responses, without a state: every request brings its whole conversation, and nothing is stored."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ssd2.algorithm.params import MAX_SEED
from ssd2.errors import SlingshotError
from user_agent.answering.service import Answered, Answering, new_id
from user_agent.api.chat import ignored_header
from user_agent.api.errors import ANSWERING, ApiError, error_body
from user_agent.api.generation import Reading, Streaming, settings_of, slingshot_answer, whole
from user_agent.api.guard import guarded, warning_header
from user_agent.api.openai_types import (
    MODEL,
    ChatMessage,
    ChatRequest,
    SlingshotAnswer,
    SlingshotOptions,
    TextPart,
    Warned,
)
from user_agent.api.state import answering_of

router = APIRouter(tags=["OpenAI"])

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "previous_response_id": ("",),
    "conversation": ("",),
    "background": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "include": ([],),
    "top_logprobs": (0,),
    "prompt": ({},),
}
"""Parameters that need a state or a tool, with the values that ask for nothing."""

ACCEPTED = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "truncation",
    "text",
}
"""Parameters that change nothing of the answer."""


MOST_ITEMS = 999
"""Messages of an input; with the instructions as many as a chat takes."""


class Part(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="allow")
    type: Literal["input_text", "output_text", "text"]
    text: Annotated[str, Field(max_length=100_000)]


class Item(BaseModel):
    """A message of the input."""

    model_config = ConfigDict(extra="allow")
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=100_000)] | list[Part]

    @property
    def as_chat(self) -> ChatMessage:
        """The message as /v1/chat/completions has it."""
        if isinstance(self.content, str):
            return ChatMessage(role=self.role, content=self.content)
        return ChatMessage(role=self.role, content=[TextPart(type="text", text=part.text) for part in self.content])


class ResponsesRequest(BaseModel):
    """POST /v1/responses."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    model: Annotated[str, Field(max_length=200, examples=[MODEL])]
    input: Annotated[str, Field(max_length=100_000)] | Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    instructions: Annotated[str | None, Field(max_length=100_000)] = None
    max_output_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=0, lt=MAX_SEED)] = None
    stream: bool | None = None
    slingshot: SlingshotOptions | None = None

    def check(self) -> list[str]:
        """Refuse what cannot be done.

        Returns:
            Names of the fields that are ignored.

        Raises:
            ApiError: if a parameter asks for what is not supported.
        """
        extra = self.model_extra or {}
        for name, neutral in NEUTRAL.items():
            if extra.get(name) is not None and extra[name] not in neutral:
                message = f"{name} is not supported here, since nothing is stored and no tool is called; leave it out"
                raise ApiError(400, "unsupported_parameter", message, name)
        text = extra.get("text")
        if isinstance(text, dict) and (text.get("format") or {"type": "text"}) != {"type": "text"}:
            raise ApiError(400, "unsupported_parameter", "only text is written here; leave text.format out", "text")
        return sorted(set(extra) - set(NEUTRAL) - ACCEPTED)

    def as_chat(self) -> ChatRequest:
        """Return the same question for /v1/chat/completions.

        Raises:
            ApiError: if there is no such model, or the last message is not the user's.
        """
        if isinstance(self.input, str):
            said = [ChatMessage(role="user", content=self.input)]
        else:
            said = [item.as_chat for item in self.input]
        if said[-1].role != "user" or not said[-1].text.strip():
            raise ApiError(400, "invalid_value", "the last message must be the user's and contain text", "input")
        system = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        settings = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        given = {"max_tokens": self.max_output_tokens, "slingshot": self.slingshot, **settings}
        chat = ChatRequest.model_validate({"model": self.model, "messages": [*system, *said], **given})
        chat.check()
        return chat


class OutputText(BaseModel):
    """Text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []


class OutputMessage(BaseModel):
    """The answer as a message."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class ResponseUsage(BaseModel):
    """Tokens that were read and written."""

    input_tokens: int
    input_tokens_details: dict[str, int] = {"cached_tokens": 0}
    output_tokens: int
    output_tokens_details: dict[str, int] = {"reasoning_tokens": 0}
    total_tokens: int


class ResponseObject(BaseModel):
    """An answer, or its beginning in a stream."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[OutputMessage] = []
    usage: ResponseUsage | None = None
    error: None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = False
    store: bool = False
    temperature: float | None = None
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    top_p: float | None = None
    slingshot: SlingshotAnswer | None = None


@router.post(
    "/v1/responses",
    response_model=ResponseObject,
    responses={
        **ANSWERING,
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "the answer, or its events",
        },
    },
)
async def responses(
    body: ResponsesRequest, client: Request, response: Response, answering: Annotated[Answering, Depends(answering_of)]
) -> ResponseObject | StreamingResponse:
    """Answer the last message of the input. Nothing is stored, so no later request can refer to this one."""
    ignored, chat = body.check(), body.as_chat()
    history = chat.history()
    if history and not answering.user_model.tokenizer.takes_conversations:
        ignored.append("messages before the last")
    asked = answering.request(chat.instruction(), history=history, **await settings_of(chat, client))
    warned = await guarded(asked, client, "input")
    headers = {**ignored_header(ignored), **warning_header(warned)}
    begun = ResponseObject(
        id=new_id("resp"),
        created_at=int(time.time()),
        status="in_progress",
        model=MODEL,
        instructions=body.instructions,
        temperature=body.temperature,
        top_p=body.top_p,
    )
    if body.stream:
        streaming = await Streaming(client, answering, asked, begun.id).begun()
        events = _numbered(_events(streaming, begun, warned), client.url.path)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    response.headers.update(headers)
    return _completed(begun, await whole(client, answering, asked, begun.id), warned)


def _message(
    begun: ResponseObject, status: Literal["in_progress", "completed", "incomplete"], text: str
) -> OutputMessage:
    content = [] if status == "in_progress" else [OutputText(text=text)]
    return OutputMessage(id=f"msg_{begun.id}", status=status, content=content)


def _completed(begun: ResponseObject, answered: Answered, warned: Sequence[Warned]) -> ResponseObject:
    """Return the response with its answer."""
    is_cut, written = answered.finish_reason == "length", len(answered.answer.tokens)
    status: Literal["completed", "incomplete"] = "incomplete" if is_cut else "completed"
    usage = ResponseUsage(
        input_tokens=answered.prompt_tokens, output_tokens=written, total_tokens=answered.prompt_tokens + written
    )
    return begun.model_copy(
        update={
            "status": status,
            "output": [_message(begun, status, answered.text)],
            "usage": usage,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "slingshot": slingshot_answer(answered, begun.id, warned),
        }
    )


async def _events(
    streaming: Streaming, begun: ResponseObject, warned: Sequence[Warned]
) -> AsyncIterator[dict[str, Any] | Reading]:
    """The events of an answer, in OpenAI's order."""
    message, place = _message(begun, "in_progress", ""), {"output_index": 0, "content_index": 0}
    of_text = {"item_id": message.id, **place}
    for kind in ("response.created", "response.in_progress"):
        yield {"type": kind, "response": begun.model_dump()}
    yield {"type": "response.output_item.added", "output_index": 0, "item": message.model_dump()}
    yield {"type": "response.content_part.added", **of_text, "part": OutputText(text="").model_dump()}
    async for text in streaming.deltas():
        if isinstance(text, Reading):
            yield text
        else:
            yield {"type": "response.output_text.delta", **of_text, "delta": text, "logprobs": []}
    done = _completed(begun, streaming.answered, warned)
    (item,) = done.output
    written = item.content[0]
    yield {"type": "response.output_text.done", **of_text, "text": written.text, "logprobs": []}
    yield {"type": "response.content_part.done", **of_text, "part": written.model_dump()}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item.model_dump()}
    yield {"type": f"response.{done.status}", "response": done.model_dump()}


async def _numbered(found: AsyncIterator[dict[str, Any] | Reading], path: str) -> AsyncIterator[str]:
    """Yield events with their numbers; a failure is the last one."""
    number = 0
    try:
        async for event in found:
            if isinstance(event, Reading):
                yield f": read {event.done} of {event.total} tokens\n\n"
                continue
            yield _event({**event, "sequence_number": number})
            number += 1
    except (SlingshotError, ApiError) as error:
        failure = error_body(error, path)[1]["error"]
        yield _event({"type": "error", **failure, "sequence_number": number})


def _event(data: dict[str, Any]) -> str:
    return f"event: {data['type']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
