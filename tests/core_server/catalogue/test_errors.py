"""Refusals: what an agent is sent of an error."""

from __future__ import annotations

import grpc
import pytest

from core_server.catalogue.errors import INTERNAL_MESSAGE, refusal_of
from ssd2 import errors
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.status_details import STATUS_DETAILS_KEY, Details, details_from_bytes


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.CheckpointInvalid, errors.InsecureLine])
def test_what_names_the_providers_files_is_not_sent(kind: type[errors.SlingshotError]) -> None:
    refusal = refusal_of(kind("no config.json in /srv/models", parameter="model"))
    assert (refusal.message, refusal.code, refusal.details) == (INTERNAL_MESSAGE, kind.code, None)


def test_what_the_agent_did_wrong_is_sent() -> None:
    refusal = refusal_of(errors.PromptTooLong("the prompt has 97 tokens", parameter="question", limit=96))
    assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
    assert (refusal.message, refusal.code) == ("the prompt has 97 tokens", "prompt_too_long")
    assert refusal.details == Details(None, "question", 96)


@pytest.mark.parametrize("error", [ValueError("/srv/secret"), KeyError("/srv/secret")])
def test_the_text_of_an_unexpected_exception_is_not_sent(error: Exception) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.message, refusal.code) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, None)


def test_a_retryable_error_says_when_as_grpc_has_it() -> None:
    metadata = dict(refusal_of(errors.TokenLimitReached("none left", retry_after_s=7)).trailing_metadata)
    assert metadata[ERROR_CODE_KEY] == "token_limit_reached"
    assert details_from_bytes(metadata[STATUS_DETAILS_KEY]).retry_after_s == 7
    for kind in (errors.CoreBusy, errors.CoreStopping, errors.EngineLost, errors.SessionLimitReached):
        sent = dict(refusal_of(kind("no")).trailing_metadata)[STATUS_DETAILS_KEY]
        assert details_from_bytes(sent).retry_after_s == 1


@pytest.mark.parametrize("kind", [errors.InvalidParameter, errors.KeyRefused, errors.ModelMismatch, ValueError])
def test_an_error_without_details_sends_none(kind: type[Exception]) -> None:
    assert STATUS_DETAILS_KEY not in dict(refusal_of(kind("no")).trailing_metadata)
