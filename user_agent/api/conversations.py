"""/v1/conversations: the conversations stored on the device."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from user_agent.answering.chats import as_json, as_markdown, title_of
from user_agent.api.errors import documented
from user_agent.api.state import state_of
from user_agent.store import history
from user_agent.stores import forget_chat

router = APIRouter(prefix="/v1/conversations", tags=["Conversations"])

Title = Annotated[str, Field(max_length=500)]


class Conversations(BaseModel):
    """Page of conversations, latest first."""

    data: list[history.Conversation]
    has_more: bool


class Message(BaseModel):
    """A message, with additional data of its author."""

    id: str
    role: Literal["user", "assistant"]
    text: str
    created: str
    trace: str
    data: dict[str, Any]


@dataclass(frozen=True)
class WholeConversation(history.Conversation):
    """A conversation with its messages, in order."""

    messages: list[Message]


class NewConversation(BaseModel):
    """Title of a conversation, or the question to make one from."""

    title: Title = ""
    question: Annotated[str, Field(max_length=1_000_000)] = ""


class NewTitle(BaseModel):
    """Title of a conversation."""

    title: Title


class Branch(BaseModel):
    """Where a conversation branches.

    Attributes:
        message: id of the last message that both have, or with `before` of the first that the branch has not.
        before: leave the message out.
    """

    message: str
    before: bool = False


class FoundMessages(BaseModel):
    """Messages and titles that were looked for."""

    data: list[history.Found]


class NewMessage(BaseModel):
    """A message to append."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=1_000_000)]
    trace: Annotated[str, Field(max_length=200)] = ""
    data: dict[str, Any] = {}


class Deleted(BaseModel):
    """Confirmation that a conversation and its messages are deleted."""

    id: str
    deleted: Literal[True] = True


@router.get("", responses=documented())
async def conversations(
    request: Request,
    after: Annotated[int, Query(ge=0, le=10**9, description="number of entries to skip")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Conversations:
    """List conversations, the latest first."""
    found = await asyncio.to_thread(state_of(request).stores.history.conversations, after, limit + 1)
    return Conversations(data=found[:limit], has_more=len(found) > limit)


@router.post("", responses=documented())
async def create(request: Request, new: NewConversation) -> history.Conversation:
    """Begin a conversation."""
    return await asyncio.to_thread(state_of(request).stores.history.create, new.title or title_of(new.question))


@router.get("/search", responses=documented())
async def search(
    request: Request,
    query: Annotated[str, Query(min_length=1, max_length=500, description="words; all of them have to be there")],
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> FoundMessages:
    """Search titles, questions and answers."""
    return FoundMessages(data=await asyncio.to_thread(state_of(request).stores.history.search, query, limit))


@router.get("/{conversation_id}", responses=documented(404))
async def conversation(request: Request, conversation_id: str) -> WholeConversation:
    """Show a conversation with its messages."""
    store = state_of(request).stores.history
    found = await asyncio.to_thread(store.get, conversation_id)
    latest_first = await asyncio.to_thread(store.messages, conversation_id, 0, -1)
    return WholeConversation(**asdict(found), messages=[_message(message) for message in reversed(latest_first)])


@router.patch("/{conversation_id}", responses=documented(404))
async def rename(request: Request, conversation_id: str, new: NewTitle) -> history.Conversation:
    """Rename a conversation."""
    return await asyncio.to_thread(state_of(request).stores.history.rename, conversation_id, new.title)


@router.delete("/{conversation_id}", responses=documented(404))
async def delete(request: Request, conversation_id: str) -> Deleted:
    """Delete a conversation; its messages are overwritten on disk. The ledger keeps what was sent."""
    state = state_of(request)
    state.answering.traces.forget(await asyncio.to_thread(forget_chat, state.stores, conversation_id))
    state.answering.forget_prompts()
    return Deleted(id=conversation_id)


@router.post("/{conversation_id}/branch", responses=documented(404))
async def branch(request: Request, conversation_id: str, where: Branch) -> history.Conversation:
    """Begin a conversation with the beginning of this one, which stays as it is."""
    make = state_of(request).stores.history.branch
    return await asyncio.to_thread(make, conversation_id, where.message, with_it=not where.before)


@router.get(
    "/{conversation_id}/export",
    response_class=Response,
    responses={
        **documented(404),
        200: {"content": {"text/markdown": {"schema": {"type": "string"}}, "application/json": {}}},
    },
)
async def export(request: Request, conversation_id: str, form: Literal["markdown", "json"] = "markdown") -> Response:
    """Export a conversation as Markdown or JSON."""
    store = state_of(request).stores.history
    found = await asyncio.to_thread(store.get, conversation_id)
    messages = (await asyncio.to_thread(store.messages, conversation_id, 0, -1))[::-1]
    if form == "json":
        return JSONResponse(as_json(found, messages))
    return Response(as_markdown(found, messages), media_type="text/markdown; charset=utf-8")


@router.post("/{conversation_id}/messages", responses=documented(404))
async def say(request: Request, conversation_id: str, new: NewMessage) -> Message:
    """Append a message."""
    append = state_of(request).stores.history.append
    return _message(await asyncio.to_thread(append, conversation_id, new.role, new.text, new.trace, new.data))


def _message(message: history.Message) -> Message:
    return Message.model_validate(message, from_attributes=True)
