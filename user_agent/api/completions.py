"""POST /v1/completions: prompts as text or as token ids."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from user_agent.answering.service import Answering, new_id
from user_agent.answering.user_model import UserModel
from user_agent.api.chat import ignored_header
from user_agent.api.errors import ANSWERING, ApiError
from user_agent.api.generation import Reading, Streaming, events, settings_of, slingshot_answer, whole
from user_agent.api.guard import guarded, warning_header
from user_agent.api.openai_types import MODEL, Completion, CompletionChoice, CompletionRequest, Usage, Warned
from user_agent.api.state import answering_of

router = APIRouter(tags=["OpenAI"])

MAX_PROMPTS = 16


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses={
        **ANSWERING,
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "the answer, or its events",
        },
    },
)
async def completions(
    body: CompletionRequest, client: Request, response: Response, answering: Annotated[Answering, Depends(answering_of)]
) -> Completion | StreamingResponse:
    """Answer each prompt as a separate instruction."""
    ignored = body.check()
    given = await settings_of(body, client)
    asked = [answering.request(text, **given) for text in _instructions(body, answering.user_model)]
    warned = [await guarded(request, client, "prompt") for request in asked]
    headers = {**ignored_header(ignored), **warning_header([one for some in warned for one in some][:1])}
    completion_id, created = new_id("cmpl"), int(time.time())
    if body.stream:
        if len(asked) != 1:
            raise ApiError(400, "invalid_value", "streaming takes one prompt; send one, or turn stream off", "prompt")
        streaming = await Streaming(client, answering, asked[0], completion_id).begun()
        chunks = _chunks(streaming, body, completion_id, created, warned[0])
        return StreamingResponse(events(chunks, client.url.path), media_type="text/event-stream", headers=headers)
    response.headers.update(headers)
    ids = [f"{completion_id}-{number}" for number in range(len(asked))]
    answers = [await whole(client, answering, request, trace_id) for request, trace_id in zip(asked, ids, strict=True)]
    return Completion(
        id=completion_id,
        created=created,
        model=MODEL,
        choices=[
            CompletionChoice(text=answered.text, index=number, finish_reason=answered.finish_reason)
            for number, answered in enumerate(answers)
        ],
        usage=Usage.of(sum(answered.prompt_tokens for answered in answers), sum(len(a.answer.tokens) for a in answers)),
        slingshot=[slingshot_answer(*one) for one in zip(answers, ids, warned, strict=True)],
    )


def _instructions(body: CompletionRequest, user_model: UserModel) -> list[str]:
    """The prompts as texts.

    Raises:
        ApiError: if there are too many, an empty one, or an id that is no token's.
    """
    prompt = body.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]  # type: ignore[assignment]
    if not 1 <= len(prompt) <= MAX_PROMPTS:
        raise ApiError(400, "invalid_value", f"there are {len(prompt)} prompts; send 1 to {MAX_PROMPTS}", "prompt")
    texts = [one if isinstance(one, str) else _decoded(one, user_model) for one in prompt]  # type: ignore[arg-type]
    if not all(text.strip() for text in texts):
        raise ApiError(400, "invalid_value", "a prompt is empty; send text or token ids", "prompt")
    return texts


def _decoded(token_ids: list[int], user_model: UserModel) -> str:
    vocab_size = user_model.config.vocab_size
    if any(not 0 <= token_id < vocab_size for token_id in token_ids):
        raise ApiError(
            400,
            "invalid_value",
            f"a token id of the prompt is outside [0, {vocab_size}); use the user model's tokenizer",
            "prompt",
        )
    return user_model.tokenizer.decode(token_ids)


async def _chunks(
    streaming: Streaming, body: CompletionRequest, completion_id: str, created: int, warned: Sequence[Warned]
) -> AsyncIterator[dict[str, Any] | Reading]:
    has_usage = bool(body.stream_options and body.stream_options.include_usage)
    every = {"id": completion_id, "object": "text_completion", "created": created, "model": MODEL}
    every |= {"usage": None} if has_usage else {}

    def chunk(text: str, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return {**every, "choices": [choice], **more}

    async for text in streaming.deltas():
        yield text if isinstance(text, Reading) else chunk(text)
    answered = streaming.answered
    yield chunk("", answered.finish_reason, slingshot=slingshot_answer(answered, completion_id, warned).model_dump())
    if has_usage:
        usage = Usage.of(answered.prompt_tokens, len(answered.answer.tokens))
        yield {**every, "choices": [], "usage": usage.model_dump()}
