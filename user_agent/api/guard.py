"""The guard before the core: refuses or reports messages that look as if a program had put documents into them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from fastapi import Request

from user_agent.answering.request import AnswerRequest
from user_agent.answering.stuffed_prompt import is_stuffed, quotes
from user_agent.api.errors import ApiError
from user_agent.api.openai_types import Warned
from user_agent.api.state import state_of

WARNING_HEADER = "x-slingshot-warning"

MOST_CHARACTERS = 20_000
"""Characters of a message that are looked at, from its start; more than most models have room for."""

MOST_MESSAGES = 20
"""Messages that are looked at, the latest ones."""

_SEES = (
    "what is sent to the core looks as if passages of documents had been put into it, and the provider can read them; "
    "put them into slingshot.private, which only the user model reads"
)


async def guarded(asked: AnswerRequest, client: Request, field: str) -> list[Warned]:
    """Look at what a request would send to the core.

    Args:
        asked: the request.
        client: the HTTP request.
        field: name of the request's field that has the text.

    Returns:
        What to tell the client.

    Raises:
        ApiError: with 400 if the text is stuffed and the agent refuses that.
    """
    config = state_of(client).config
    lambda_user = asked.lambda_user
    is_sent = lambda_user != 1 and (lambda_user is not None or config.asks_core)
    if config.stuffed_prompts == "allow" or not is_sent or not await asyncio.to_thread(_is_stuffed, asked):
        return []
    if config.stuffed_prompts == "refuse":
        message = f"{_SEES}, or have the agent's setting stuffed_prompts at warn"
        raise ApiError(400, "stuffed_prompt", message, field)
    return [Warned(code="stuffed_prompt", message=_SEES, param=field)]


def warning_header(warned: list[Warned]) -> dict[str, str]:
    """Return the codes of warnings as a header; no header without one."""
    return {WARNING_HEADER: ", ".join(one.code for one in warned)} if warned else {}


def _is_stuffed(asked: AnswerRequest) -> bool:
    private = asked.private_context[:MOST_CHARACTERS]
    return any(is_stuffed(text) or quotes(text, private) for text in _sent(asked))


def _sent(asked: AnswerRequest) -> Iterator[str]:
    """Yield what the client wrote and the core is sent; answers are no client's."""
    yield asked.question[:MOST_CHARACTERS]
    written = [message.content for message in asked.history if message.role != "assistant"]
    for text in written[-MOST_MESSAGES:]:
        yield text[:MOST_CHARACTERS]
