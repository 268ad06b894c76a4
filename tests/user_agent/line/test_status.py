"""What a device believes of a core's refusals."""

from __future__ import annotations

import grpc
import pytest

from ssd2.errors import PARAMETERS_SENT_BY_CORES, SENT_BY_CORES, InvalidParameter, SlingshotError, all_kinds
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.status_details import STATUS_DETAILS_KEY, Details, details_to_bytes
from user_agent.commands.remedies import with_remedy
from user_agent.errors import CoreLost
from user_agent.line.status import error_of_status

PRIVATE = sorted(kind.code for kind in set(all_kinds()) - SENT_BY_CORES)


def _received(code: str, details: Details | None = None) -> SlingshotError:
    metadata: list[tuple[str, str | bytes]] = [(ERROR_CODE_KEY, code)]
    if details:
        metadata.append((STATUS_DETAILS_KEY, details_to_bytes(13, "says it", details)))
    return error_of_status(grpc.StatusCode.INTERNAL, "says it", grpc.aio.Metadata(*metadata), "core:1", "just now")


@pytest.mark.parametrize("code", [*PRIVATE, "nonsense", ""])
def test_a_core_cannot_speak_for_the_agent(code: str) -> None:
    received = _received(code, Details(parameter="question", limit=3))
    assert type(received) is CoreLost
    assert "says it" not in str(received)
    assert (received.parameter, received.limit) == (None, None)


@pytest.mark.parametrize("parameter", sorted(PARAMETERS_SENT_BY_CORES))
def test_a_core_may_name_a_parameter_of_the_question(parameter: str) -> None:
    received = _received("invalid_parameter", Details(parameter=parameter, limit=7))
    assert (type(received), received.parameter, received.limit) == (InvalidParameter, parameter, 7)


@pytest.mark.parametrize("parameter", ["insecure", "ca", "core", "core_key", "passphrase", "nonsense"])
def test_a_core_cannot_ask_for_a_change_of_what_protects_the_device(parameter: str) -> None:
    received = _received("invalid_parameter", Details(parameter=parameter, limit=7))
    assert (received.parameter, received.limit) == (None, None)
    assert with_remedy(received) == "the core at core:1 refused: says it"
