from __future__ import annotations

import pytest

from ssd2.wire.retry import retry_after_s, status_details


def test_the_bytes_are_those_of_the_contracts_that_others_read() -> None:
    """google.rpc.Status{code 8, message, details: Any(RetryInfo{Duration 1 s + 500 ms})}, by hand."""
    duration = b"\x08\x01\x10\x80\xca\xb5\xee\x01"
    info = b"\x0a" + bytes([len(duration)]) + duration
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    packed = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(info)]) + info
    assert status_details(8, "full", 1.5) == b"\x08\x08\x12\x04full\x1a" + bytes([len(packed)]) + packed


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 3600.0])
def test_what_is_said_is_read(seconds: float) -> None:
    assert retry_after_s(status_details(14, "gone", seconds)) == seconds


@pytest.mark.parametrize("details", [b"", b"\xff\xff", b"\x08\x08"])
def test_what_says_nothing_of_it_gives_none(details: bytes) -> None:
    assert retry_after_s(details) is None


@pytest.mark.parametrize("seconds", [3601.0, 2.0**53])
def test_nobody_is_told_to_wait_longer_than_an_hour(seconds: float) -> None:
    assert retry_after_s(status_details(8, "", seconds)) == 3600.0


def test_a_time_that_has_passed_is_now() -> None:
    assert retry_after_s(status_details(8, "", -5.0)) == 0.0
