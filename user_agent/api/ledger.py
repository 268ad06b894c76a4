"""/v1/ledger: every message that left the device, and every one that came."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ssd2.models.tokenizer import Tokenizer
from user_agent.api.errors import documented
from user_agent.api.state import state_of
from user_agent.store.ledger import Entry as LedgerEntry

router = APIRouter(prefix="/v1/ledger", tags=["What left the device"])


class Entry(BaseModel):
    """One message that crossed."""

    seq: int
    time: str
    direction: Literal["up", "down"]
    destination: str
    rpc: str
    payload_bytes: int
    wire_bytes: int
    sha256: str
    previous: str
    trace: str


class DecodedEntry(Entry):
    """With the message, if it left.

    Attributes:
        message: its kind and its fields as the contract names them.
        texts: of its token ids, in order.
    """

    message: dict[str, Any] | None
    texts: list[str]


class Entries(BaseModel):
    """A page, in order."""

    data: list[Entry]
    has_more: bool


class Traffic(BaseModel):
    """Messages and bytes in one direction."""

    messages: int
    payload_bytes: int
    wire_bytes: int


class Totals(BaseModel):
    """All of the ledger, or of one answer.

    Attributes:
        up: from this device to a core.
        down: from a core.
        local: of those up, what went to a core on this machine, and so did not leave it.
    """

    up: Traffic
    down: Traffic
    local: Traffic


class Verification(BaseModel):
    """Whether the chain holds, and up to where."""

    entries: int
    chain: str
    broken_seq: int | None
    reason: str


@router.get("", responses=documented())
async def entries(
    request: Request,
    after: Annotated[int, Query(ge=0, lt=2**63, description="number of the entry before the first")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    trace: Annotated[str | None, Query(max_length=200, description="of one answer")] = None,
    direction: Literal["up", "down"] | None = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="the latest first, back from this number")] = None,
) -> Entries:
    """Entries in order; with `before` the latest first."""
    find = state_of(request).stores.ledger.entries
    found = await asyncio.to_thread(find, after, limit + 1, trace, direction, before_seq=before)
    return Entries(data=[_entry(entry) for entry in found[:limit]], has_more=len(found) > limit)


@router.get("/totals", responses=documented())
async def totals(
    request: Request, trace: Annotated[str | None, Query(max_length=200, description="of one answer")] = None
) -> Totals:
    """How much crossed, each way."""
    return Totals.model_validate(asdict(await asyncio.to_thread(state_of(request).stores.ledger.totals, trace)))


@router.get("/verify", responses=documented())
async def verify(request: Request) -> Verification:
    """Walk along the chain."""
    return Verification.model_validate(asdict(await asyncio.to_thread(state_of(request).stores.ledger.verify)))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**documented(), 200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def export(request: Request) -> StreamingResponse:
    """All entries, each a line of JSON with its message in hexadecimal."""

    def lines() -> Iterator[str]:
        return (f"{line}\n" for line in state_of(request).stores.ledger.export())

    headers = {"content-disposition": 'attachment; filename="ledger.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


@router.get("/{seq}", responses=documented(404))
async def entry(request: Request, seq: Annotated[int, Path(ge=1, lt=2**63)]) -> DecodedEntry:
    """One entry with its message."""
    state = state_of(request)
    found = await asyncio.to_thread(state.stores.ledger.entry, seq)
    message = found.message
    return DecodedEntry(
        **_entry(found).model_dump(),
        message=asdict(message) if message else None,
        texts=_texts(message.token_ids, state.answering.user_model.tokenizer) if message else [],
    )


def _entry(entry: LedgerEntry) -> Entry:
    return Entry(**{name: getattr(entry, name) for name in Entry.model_fields})


def _texts(token_ids: Any, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token_name(token_id) for token_id in token_ids]
