"""For whoever watches over the agent: whether it runs, whether it can answer, and its figures."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ssd2.errors import SlingshotError
from user_agent.api.state import answering_of

router = APIRouter(tags=["Health"])


class Health(BaseModel):
    """The agent runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Readiness of the agent for an answer.

    Attributes:
        status: ready, or what is missing.
        reason: what is wrong, in words.
        code: code of the error.
    """

    status: Literal["ready", "no core"]
    reason: str | None = None
    code: str | None = None


@router.get("/health")
async def health() -> Health:
    """The agent runs."""
    return Health()


@router.get("/ready", responses={503: {"model": Ready}})
async def ready(request: Request, response: Response) -> Ready:
    """Tell whether there is a connection to the core."""
    try:
        await answering_of(request).ready()
    except SlingshotError as error:
        response.status_code = 503
        return Ready(status="no core", reason=str(error), code=error.code)
    return Ready(status="ready")
