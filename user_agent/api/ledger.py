"""/v1/ledger: every message that left the device or arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ssd2.models.tokenizer import Tokenizer
from user_agent.api.errors import documented
from user_agent.api.state import state_of
from user_agent.store import ledger

router = APIRouter(prefix="/v1/ledger", tags=["What left the device"])


@dataclass(frozen=True)
class DecodedEntry(ledger.Crossing):
    """A crossing with its message, if it left.

    Attributes:
        message: its kind and its fields as the contract names them.
        texts: of its token ids, in order.
    """

    message: dict[str, Any] | None
    texts: list[str]


class Entries(BaseModel):
    """Page of entries, in order."""

    data: list[ledger.Crossing]
    has_more: bool


@router.get("", responses=documented())
async def entries(
    request: Request,
    after: Annotated[int, Query(ge=0, lt=2**63, description="list only entries after this number")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    trace: Annotated[str | None, Query(max_length=200, description="id of one answer")] = None,
    direction: Literal["up", "down"] | None = None,
    before: Annotated[
        int | None, Query(ge=1, lt=2**63, description="list entries before this number, latest first")
    ] = None,
) -> Entries:
    """List entries in order; with `before` the latest first."""
    find = state_of(request).stores.ledger.entries
    found = await asyncio.to_thread(find, after, limit + 1, trace, direction, before_seq=before)
    return Entries(data=list(found[:limit]), has_more=len(found) > limit)


@router.get("/totals", responses=documented())
async def totals(
    request: Request, trace: Annotated[str | None, Query(max_length=200, description="id of one answer")] = None
) -> ledger.Totals:
    """Count messages and bytes, each way."""
    return await asyncio.to_thread(state_of(request).stores.ledger.totals, trace)


@router.get("/verify", responses=documented())
async def verify(request: Request) -> ledger.Verification:
    """Verify the hash chain."""
    return await asyncio.to_thread(state_of(request).stores.ledger.verify)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={**documented(), 200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def export(request: Request) -> StreamingResponse:
    """Export all entries as JSON lines, with messages in hexadecimal."""

    def lines() -> Iterator[str]:
        return (f"{line}\n" for line in state_of(request).stores.ledger.export())

    headers = {"content-disposition": 'attachment; filename="ledger.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


@router.get("/{seq}", responses=documented(404))
async def entry(request: Request, seq: Annotated[int, Path(ge=1, lt=2**63)]) -> DecodedEntry:
    """Show one entry with its message."""
    state = state_of(request)
    found = await asyncio.to_thread(state.stores.ledger.entry, seq)
    message = found.message
    return DecodedEntry(
        **{one.name: getattr(found, one.name) for one in fields(ledger.Crossing)},
        message=asdict(message) if message else None,
        texts=_texts(message.token_ids, state.answering.user_model.tokenizer) if message else [],
    )


def _texts(token_ids: Any, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token_name(token_id) for token_id in token_ids]
