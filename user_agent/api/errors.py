"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ssd2.errors import SlingshotError
from user_agent.answering.request import AnswerSettings
from user_agent.fields import settings_of

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

_OF_BOTH = {name: setting.face.openai or f"slingshot.{name}" for name, setting in settings_of(AnswerSettings).items()}
FIELDS: dict[str, dict[str, str]] = {
    "/v1/chat/completions": {**_OF_BOTH, "question": "messages"},
    "/v1/completions": {**_OF_BOTH, "question": "prompt"},
    "/v1/responses": {**_OF_BOTH, "question": "input", "max_tokens": "max_output_tokens"},
}
"""The remedy of a client: the request's field, by route and an error's parameter. Others are settings of the agent."""


class ErrorBody(BaseModel):
    """Description of an error.

    Attributes:
        message: what is wrong, and what to do about it.
        type: kind of error, by its status.
        param: field of the request, or setting of the agent, that has to change; null if it is none.
        code: stable code of the error.
        limit: largest value of `param`, in tokens if it is a text; left out if there is no such number.
    """

    message: str
    type: str
    param: str | None = None
    code: str
    limit: int | None = None


class ErrorResponse(BaseModel):
    """Body of every error."""

    error: ErrorBody


class ApiError(Exception):
    """A request that is refused by the endpoint itself."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the errors that it may answer with, beside those that all have."""
    return {status: {"model": ErrorResponse} for status in sorted({400, 401, 403, 413, *statuses})}


def documented_beside_events(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for a route whose other answers are events: errors are JSON."""
    schema = {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}
    return {status: {"content": {"application/json": {"schema": schema}}} for status in documented(*statuses)}


ANSWERING = documented(404, 429, 502, 503, 504)
"""Errors of routes that ask the core."""


def error_body(error: SlingshotError | ApiError, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of an error.

    Args:
        error: to describe.
        path: of the route that it happened in, which decides what a request calls the error's parameter.
    """
    if isinstance(error, ApiError):
        status, code, param = error.status, error.code, error.param
    else:
        status, code, param = error.http_status, error.code, _field(error, path)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    body: dict[str, Any] = {"message": str(error), "type": kind, "param": param, "code": code}
    if isinstance(error, SlingshotError) and error.limit is not None:
        body["limit"] = error.limit
    return status, {"error": body}


def _field(error: SlingshotError, path: str) -> str | None:
    return None if error.parameter is None else FIELDS.get(path, {}).get(error.parameter, error.parameter)


def handle_errors(app: FastAPI) -> None:
    """Give every error of an app this shape."""

    def answered(error: SlingshotError | ApiError, path: str = "") -> JSONResponse:
        status, body = error_body(error, path)
        headers = {}
        if isinstance(error, SlingshotError) and error.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(body, status, headers)

    @app.exception_handler(SlingshotError)
    @app.exception_handler(ApiError)
    async def on_purpose(request: Request, error: Exception) -> JSONResponse:
        return answered(error, request.url.path)  # type: ignore[arg-type]

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return answered(ApiError(400, "invalid_json", "the body is not JSON; send a JSON object"))
        place = [str(part) for part in first["loc"][1:]]
        message = f"{'.'.join(place) or 'the body'}: {first['msg']}"
        return answered(ApiError(400, "invalid_value", message, ".".join(place) or None))

    @app.exception_handler(HTTPException)
    async def by_the_framework(_: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
        answer = answered(
            ApiError(error.status_code, codes.get(error.status_code, "invalid_request"), str(error.detail))
        )
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return answered(ApiError(500, "internal_error", "the agent failed on this request; see its log"))
