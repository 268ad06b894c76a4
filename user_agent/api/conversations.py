"""/v1/conversations: what was said, kept on the device."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from user_agent.api.errors import documented
from user_agent.api.state import state_of
from user_agent.store import history

router = APIRouter(prefix="/v1/conversations", tags=["Conversations"])

Title = Annotated[str, Field(max_length=500)]


class Conversation(BaseModel):
    """A conversation; times are UTC."""

    id: str
    title: str
    created: str
    updated: str


class Conversations(BaseModel):
    """A page, the latest first."""

    data: list[Conversation]
    has_more: bool


class Message(BaseModel):
    """Something said, with whatever its teller wanted kept beside it."""

    id: str
    role: Literal["user", "assistant"]
    text: str
    created: str
    trace: str
    data: dict[str, Any]


class WholeConversation(Conversation):
    """With all that was said, in order."""

    messages: list[Message]


class NewConversation(BaseModel):
    """One that begins, or its new title."""

    title: Title


class NewMessage(BaseModel):
    """What was said."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=1_000_000)]
    trace: Annotated[str, Field(max_length=200)] = ""
    data: dict[str, Any] = {}


class Deleted(BaseModel):
    """It is gone, with all that was said in it."""

    id: str
    deleted: Literal[True] = True


@router.get("", responses=documented())
async def conversations(
    request: Request,
    after: Annotated[int, Query(ge=0, le=10**9, description="how many to leave out from the start")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Conversations:
    """The latest first."""
    found = await asyncio.to_thread(state_of(request).stores.history.conversations, after, limit + 1)
    return Conversations(data=[Conversation(**asdict(one)) for one in found[:limit]], has_more=len(found) > limit)


@router.post("", responses=documented())
async def create(request: Request, new: NewConversation) -> Conversation:
    """Begin one."""
    return Conversation(**asdict(await asyncio.to_thread(state_of(request).stores.history.create, new.title)))


@router.get("/{conversation_id}", responses=documented(404))
async def conversation(request: Request, conversation_id: str) -> WholeConversation:
    """One with all that was said."""
    kept = state_of(request).stores.history
    found = await asyncio.to_thread(kept.get, conversation_id)
    said = await asyncio.to_thread(kept.messages, conversation_id, 0, -1)
    return WholeConversation(**asdict(found), messages=[_message(message) for message in reversed(said)])


@router.patch("/{conversation_id}", responses=documented(404))
async def rename(request: Request, conversation_id: str, new: NewConversation) -> Conversation:
    """Give it another title."""
    kept = state_of(request).stores.history
    return Conversation(**asdict(await asyncio.to_thread(kept.rename, conversation_id, new.title)))


@router.delete("/{conversation_id}", responses=documented(404))
async def delete(request: Request, conversation_id: str) -> Deleted:
    """Delete it; what was said is overwritten."""
    await asyncio.to_thread(state_of(request).stores.history.delete, conversation_id)
    return Deleted(id=conversation_id)


@router.post("/{conversation_id}/messages", responses=documented(404))
async def say(request: Request, conversation_id: str, new: NewMessage) -> Message:
    """Add what was said last."""
    append = state_of(request).stores.history.append
    return _message(await asyncio.to_thread(append, conversation_id, new.role, new.text, new.trace, new.data))


def _message(message: history.Message) -> Message:
    return Message(
        id=message.id,
        role=message.role,
        text=message.text,
        created=message.created,
        trace=message.trace,
        data=message.data,
    )
