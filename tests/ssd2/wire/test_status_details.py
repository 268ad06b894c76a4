from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from ssd2.wire.status_details import DOMAIN, HIGHEST_LIMIT, Details, details_from_bytes, details_to_bytes


def test_the_bytes_are_those_of_the_contracts_that_others_read() -> None:
    """google.rpc.Status{code 8, message, details: Any(RetryInfo{Duration 1 s + 500 ms})}, by hand."""
    duration = b"\x08\x01\x10\x80\xca\xb5\xee\x01"
    info = b"\x0a" + bytes([len(duration)]) + duration
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    packed = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(info)]) + info
    assert details_to_bytes(8, "full", Details(1.5)) == b"\x08\x08\x12\x04full\x1a" + bytes([len(packed)]) + packed


@pytest.mark.parametrize(
    "details",
    [
        *(Details(seconds) for seconds in (0.0, 0.25, 1.0, 3600.0)),
        Details(None, "block_size"),
        Details(None, "block_size", 32),
        Details(1.0, "block_size", HIGHEST_LIMIT),
        Details(),
    ],
)
def test_what_is_written_is_read(details: Details) -> None:
    assert details_from_bytes(details_to_bytes(14, "gone", details)) == details


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\x08\x08"])
def test_bytes_without_details_give_none(data: bytes) -> None:
    assert details_from_bytes(data) == Details()


@pytest.mark.parametrize("seconds", [3601.0, 2.0**53])
def test_nobody_waits_longer_than_an_hour(seconds: float) -> None:
    assert details_from_bytes(details_to_bytes(8, "", Details(seconds))).retry_after_s == 3600.0


def test_a_time_that_has_passed_is_now() -> None:
    assert details_from_bytes(details_to_bytes(8, "", Details(-5.0))).retry_after_s == 0.0


def _written(domain: str, **metadata: str) -> Details:
    status = Status(code=3)
    status.details.add().Pack(ErrorInfo(domain=domain, metadata=metadata))
    return details_from_bytes(status.SerializeToString())


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "many", "٣", str(HIGHEST_LIMIT + 1), "9" * 10_000])
def test_a_limit_that_is_not_a_number_is_dropped(limit: str) -> None:
    assert _written(DOMAIN, parameter="steps", limit=limit) == Details(None, "steps", None)


def test_an_error_info_of_another_domain_is_not_read() -> None:
    assert _written("example.org", parameter="steps", limit="3") == Details()
