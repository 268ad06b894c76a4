"""/v1/keys: who may use the endpoint, and for what."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Security
from pydantic import BaseModel, Field

from user_agent.api.errors import ApiError, documented
from user_agent.api.security import authorised
from user_agent.api.state import state_of
from user_agent.store.access_keys import MAX_NAME_LENGTH, AccessKey, Scope

router = APIRouter(prefix="/v1/keys", tags=["Keys"])


class Key(BaseModel):
    """A key without its text; `created` is empty for keys that the agent has made by itself."""

    name: str
    scopes: list[Scope]
    created: str


class Keys(BaseModel):
    """All keys."""

    data: list[Key]


class NewKey(BaseModel):
    """Name and scopes of a key."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
    scopes: Annotated[list[Scope], Field(min_length=1)] = ["ask"]


class CreatedKey(BaseModel):
    """A new key; its text is shown this once."""

    name: str
    scopes: list[Scope]
    key: str


class Revoked(BaseModel):
    """Confirmation that a key is valid no more."""

    name: str
    revoked: Literal[True] = True


@router.get("", responses=documented())
async def keys(request: Request) -> Keys:
    """List the keys, with what each may do."""
    found = await asyncio.to_thread(state_of(request).keys.all)
    return Keys(data=[Key(name=one.name, scopes=list(one.scopes), created=one.created) for one in found])


@router.post("", status_code=201, responses=documented())
async def create(request: Request, new: NewKey, caller: Annotated[AccessKey, Security(authorised)]) -> CreatedKey:
    """Create a key, with no scope that the caller's does not have."""
    if beyond := [scope for scope in new.scopes if scope not in caller.scopes]:
        raise ApiError(403, "insufficient_scope", f"this key has no scope {beyond[0]}, so it cannot give it", "scopes")
    key = await asyncio.to_thread(state_of(request).keys.create, new.name, new.scopes)
    return CreatedKey(name=new.name, scopes=new.scopes, key=key)


@router.delete("/{name}", responses=documented(404))
async def revoke(request: Request, name: str) -> Revoked:
    """Make a key invalid at once."""
    await asyncio.to_thread(state_of(request).keys.revoke, name)
    return Revoked(name=name)
