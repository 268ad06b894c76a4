"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from user_agent.answering.service import Answering, new_id
from user_agent.api.errors import ANSWERING
from user_agent.api.generation import Reading, Streaming, events, settings_of, slingshot_answer, whole
from user_agent.api.guard import guarded, warning_header
from user_agent.api.openai_types import MODEL, AssistantMessage, ChatChoice, ChatCompletion, ChatRequest, Usage, Warned
from user_agent.api.state import answering_of

router = APIRouter(tags=["OpenAI"])

IGNORED_HEADER = "x-slingshot-ignored"
_MOST_NAMED = 20


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Names as a header; what is no letter, digit or the like is percent-encoded: they are the client's."""
    return {IGNORED_HEADER: ", ".join(quote(name[:80], safe=" ", errors="replace") for name in names[:_MOST_NAMED])}


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={
        **ANSWERING,
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "the answer, or its events",
        },
    },
)
async def chat_completions(
    body: ChatRequest, client: Request, response: Response, answering: Annotated[Answering, Depends(answering_of)]
) -> ChatCompletion | StreamingResponse:
    """Answer the last message.

    Both models read the system prompt and the earlier messages. The core is not sent answers that were composed on this
    device. Models without a chat template read one question: earlier messages are ignored and listed in a header.
    """
    ignored_names, history = body.check(), body.history()
    if history and not answering.user_model.tokenizer.takes_conversations:
        ignored_names.append("messages before the last")
    asked = answering.request(body.instruction(), history=history, **await settings_of(body, client))
    warned = await guarded(asked, client, "messages")
    headers = {**ignored_header(ignored_names), **warning_header(warned)}
    trace_id, created = new_id("chatcmpl"), int(time.time())
    if body.stream:
        streaming = await Streaming(client, answering, asked, trace_id).begun()
        chunks = _chunks(streaming, body, trace_id, created, warned)
        return StreamingResponse(events(chunks, client.url.path), media_type="text/event-stream", headers=headers)
    response.headers.update(headers)
    answered = await whole(client, answering, asked, trace_id)
    message = AssistantMessage(content=answered.text)
    return ChatCompletion(
        id=trace_id,
        created=created,
        model=MODEL,
        choices=[ChatChoice(message=message, finish_reason=answered.finish_reason)],
        usage=Usage.of(answered.prompt_tokens, len(answered.answer.tokens)),
        slingshot=slingshot_answer(answered, trace_id, warned),
    )


async def _chunks(
    streaming: Streaming, body: ChatRequest, trace_id: str, created: int, warned: Sequence[Warned]
) -> AsyncIterator[dict[str, Any] | Reading]:
    """The answer's chunks: its role, its text block by block, its end, and its usage if that is wanted."""
    has_usage = bool(body.stream_options and body.stream_options.include_usage)
    every = {"id": trace_id, "object": "chat.completion.chunk", "created": created, "model": MODEL}
    every |= {"usage": None} if has_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**every, "choices": [choice], **more}

    yield chunk({"role": "assistant", "content": ""}, slingshot={"trace": trace_id})
    async for text in streaming.deltas():
        yield text if isinstance(text, Reading) else chunk({"content": text})
    answered = streaming.answered
    yield chunk({}, answered.finish_reason, slingshot=slingshot_answer(answered, trace_id, warned).model_dump())
    if has_usage:
        usage = Usage.of(answered.prompt_tokens, len(answered.answer.tokens))
        yield {**every, "choices": [], "usage": usage.model_dump()}
