"""GET /v1/models."""

from __future__ import annotations

from fastapi import APIRouter, Request

from user_agent.api.errors import ApiError, documented
from user_agent.api.openai_types import MODEL, ModelInfo, ModelList
from user_agent.api.state import state_of

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", responses=documented())
async def models(request: Request) -> ModelList:
    """List the one model: core and user model together."""
    return ModelList(data=[_model(request)])


@router.get("/v1/models/{model}", responses=documented(404))
async def model(model: str, request: Request) -> ModelInfo:
    """Return the model of this name."""
    if model != MODEL:
        raise ApiError(404, "model_not_found", f"there is no model {model!r}; use {MODEL!r}", "model")
    return _model(request)


def _model(request: Request) -> ModelInfo:
    user_model = state_of(request).answering.user_model
    return ModelInfo(
        id=MODEL,
        created=state_of(request).started,
        owned_by="slingshot",
        context_length=user_model.config.max_positions,
        max_output_tokens=user_model.longest_answer,
    )
