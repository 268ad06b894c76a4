"""What a core's refusals are taken for."""

from __future__ import annotations

import grpc
import pytest

from core_server.catalogue.errors import CATALOGUE, refusal_of
from ssd2.errors import SENT_BY_CORES, CoreLost, SlingshotError
from ssd2.wire.codec import ERROR_CODE_KEY
from user_agent.line.status import error_of_status

SENT, PRIVATE = [sorted(kinds, key=lambda kind: kind.code) for kinds in (SENT_BY_CORES, set(CATALOGUE) - SENT_BY_CORES)]


def _told(code: str, status: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> SlingshotError:
    return error_of_status(status, "says it", grpc.aio.Metadata((ERROR_CODE_KEY, code)), "core:1", "just now")


def test_a_core_is_believed_what_the_catalogue_lets_it_say() -> None:
    assert {kind for kind, entry in CATALOGUE.items() if entry.is_public} == SENT_BY_CORES


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.code)
def test_what_a_core_refuses_is_the_same_error_on_the_device(kind: type[SlingshotError]) -> None:
    refusal = refusal_of(kind("no"))
    assert refusal.code is not None
    told = _told(refusal.code, refusal.status)
    assert (type(told), str(told)) == (kind, "the core at core:1 refused: says it")


@pytest.mark.parametrize("code", [*(kind.code for kind in PRIVATE), "core_error", "slingshot_error", "nonsense", ""])
def test_a_core_cannot_speak_for_the_agent(code: str) -> None:
    told = _told(code)
    assert type(told) is CoreLost
    assert "says it" not in str(told)
