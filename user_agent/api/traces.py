"""GET /v1/traces/{id}/events: how an answer came about, live and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from user_agent.answering.traces import Trace
from user_agent.api.errors import documented_beside_events
from user_agent.api.state import answering_of

router = APIRouter(tags=["Traces"])


def trace_of(trace_id: str, request: Request) -> Trace:
    """The trace of an answer.

    Raises:
        NotFound: if there is none such.
    """
    return answering_of(request).traces.get(trace_id)


@router.get("/v1/traces/{trace_id}/events", response_class=EventSourceResponse, responses=documented_beside_events(404))
async def trace_events(
    trace: Annotated[Trace, Depends(trace_of)],
    last_event_id: Annotated[int, Header(ge=0, description="continue after this event")] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Stream all events of an answer, from the first, as they come; the last is answer.end."""
    async for event in trace.follow(last_event_id):
        yield ServerSentEvent(data=event.data, event=event.kind, id=str(event.number))
