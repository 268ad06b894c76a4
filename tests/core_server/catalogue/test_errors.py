from __future__ import annotations

import grpc
import pytest

from core_server.catalogue.errors import CATALOGUE, INTERNAL_MESSAGE, refusal_of
from ssd2 import errors
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.retry import STATUS_DETAILS_KEY, retry_after_s


def leaves(kind: type[errors.SlingshotError]) -> set[type[errors.SlingshotError]]:
    children = kind.__subclasses__()
    return {leaf for child in children for leaf in leaves(child)} if children else {kind}


def test_every_error_has_a_status() -> None:
    assert set(CATALOGUE) == leaves(errors.SlingshotError)
    assert grpc.StatusCode.OK not in {entry.status for entry in CATALOGUE.values()}


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.CheckpointInvalid, errors.DocumentsUnreadable])
def test_what_names_the_providers_files_is_not_told(kind: type[errors.SlingshotError]) -> None:
    refusal = refusal_of(kind("no config.json in /srv/models"))
    assert (refusal.message, refusal.code) == (INTERNAL_MESSAGE, kind.code)


def test_what_the_agent_did_wrong_is_told() -> None:
    refusal = refusal_of(errors.PromptTooLong("the prompt has 97 tokens"))
    assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
    assert (refusal.message, refusal.code) == ("the prompt has 97 tokens", "prompt_too_long")


@pytest.mark.parametrize("error", [ValueError("/srv/secret"), errors.SlingshotError("/srv/secret")])
def test_what_nobody_foresaw_is_not_told(error: Exception) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.message, refusal.code) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, None)


def test_what_can_be_asked_again_says_when_as_grpc_has_it() -> None:
    metadata = dict(refusal_of(errors.TokenLimitReached("none left", 7)).trailing_metadata)
    assert metadata[ERROR_CODE_KEY] == "token_limit_reached"
    assert retry_after_s(metadata[STATUS_DETAILS_KEY]) == 7
    for kind in (errors.CoreBusy, errors.CoreStopping, errors.EngineLost, errors.SessionLimitReached):
        assert retry_after_s(dict(refusal_of(kind("no")).trailing_metadata)[STATUS_DETAILS_KEY]) == 1


@pytest.mark.parametrize("kind", [errors.InvalidParameter, errors.KeyRefused, errors.ModelMismatch, ValueError])
def test_what_is_no_use_to_ask_again_says_nothing_of_when(kind: type[Exception]) -> None:
    assert STATUS_DETAILS_KEY not in dict(refusal_of(kind("no")).trailing_metadata)
