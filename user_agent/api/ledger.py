"""/v1/ledger: every message that left the device or arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.told import told_by
from user_agent.api.errors import documented
from user_agent.api.state import state_of
from user_agent.store import ledger
from user_agent.store.answers import CrossedWords, State

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


@dataclass(frozen=True)
class Answer:
    """One answer for which something crossed.

    Attributes:
        trace: id of the answer.
        question: as it was asked; null if it is not known, as after its chat was deleted.
        says: what whoever runs the core now knows, as a sentence.
        lead: the beginning of the sentence, before the words; without words all of it.
        words: of documents and private context that crossed with the answer.
        state: "begun" until the answer ends, then "whole", or "stopped" if it failed or was stopped; null if it is not
            known.
        time: of its first message.
        destinations: that messages were sent to.
        first_seq: number of its first entry.
        last_seq: number of its last one.
        totals: messages and bytes of the answer.
    """

    trace: str
    question: str | None
    says: str
    lead: str
    words: Sequence[CrossedWords]
    state: State | None
    time: str
    destinations: Sequence[str]
    first_seq: int
    last_seq: int
    totals: ledger.Totals


class Answers(BaseModel):
    """Page of answers, the latest first.

    Attributes:
        data: answers.
        has_more: whether there are earlier ones.
        outside: what crossed outside of answers, as when the core was asked for its model.
    """

    data: list[Answer]
    has_more: bool
    outside: ledger.Totals


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


@router.get("/answers", responses=documented())
async def answers(
    request: Request,
    before: Annotated[int, Query(ge=1, lt=2**63, description="list answers whose last entry comes before")] = 2**63 - 1,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Answers:
    """List answers and what the provider knows from each, the latest first."""
    stores = state_of(request).stores
    found = await asyncio.to_thread(stores.ledger.answers, limit + 1, before_seq=before)
    records = await asyncio.to_thread(stores.answers.of, [one.trace for one in found])
    return Answers(
        data=[Answer(**told_by(one, records.get(one.trace))) for one in found[:limit]],
        has_more=len(found) > limit,
        outside=await asyncio.to_thread(stores.ledger.totals, ""),
    )


@router.get("/answers/{trace}", responses=documented(404))
async def answer(request: Request, trace: str) -> Answer:
    """Show what the provider knows from one answer."""
    stores = state_of(request).stores
    found = await asyncio.to_thread(stores.ledger.answer, trace)
    return Answer(**told_by(found, (await asyncio.to_thread(stores.answers.of, [trace])).get(trace)))


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
