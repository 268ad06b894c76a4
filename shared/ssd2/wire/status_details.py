"""The details of a refusal, as gRPC's richer errors carry them: a google.rpc.Status beside the plain status.

A RetryInfo says when to ask again, an ErrorInfo which parameter has to change and its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that holds it."""

LONGEST_RETRY_S = 3600.0
"""A longer time is cut to this: the other side may write anything."""

HIGHEST_LIMIT = 2**63 - 1
"""A higher limit is dropped."""

DOMAIN = "slingshot"


@dataclass(frozen=True)
class Details:
    """Details of a status beyond its text.

    Attributes:
        retry_after_s: seconds to wait before a retry; None to say nothing of it.
        parameter: name of the parameter that has to change; None if there is none.
        limit: its highest value; None if there is none.
    """

    retry_after_s: float | None = None
    parameter: str | None = None
    limit: int | None = None


def details_to_bytes(code: int, message: str, details: Details) -> bytes:
    """Return the trailer's value.

    Args:
        code: of the call's status.
        message: of it.
        details: to carry.
    """
    status = Status(code=code, message=message)
    if details.retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(round(details.retry_after_s * 1000))
        status.details.add().Pack(retry)
    if details.parameter is not None:
        limit = {} if details.limit is None else {"limit": str(details.limit)}
        info = ErrorInfo(domain=DOMAIN, metadata={"parameter": details.parameter, **limit})
        status.details.add().Pack(info)
    serialized: bytes = status.SerializeToString()
    return serialized


def details_from_bytes(data: bytes) -> Details:
    """Read the trailer's value; whatever is missing or does not parse is None."""
    try:
        packed = Status.FromString(data).details
        retry, info = RetryInfo(), ErrorInfo()
        has_retry = any(detail.Unpack(retry) for detail in packed)
        has_info = any(detail.Unpack(info) for detail in packed) and info.domain == DOMAIN
    except DecodeError:
        return Details()
    seconds: float | None = retry.retry_delay.ToMilliseconds() / 1000 if has_retry else None
    return Details(
        None if seconds is None else min(max(0.0, seconds), LONGEST_RETRY_S),
        (info.metadata.get("parameter") or None) if has_info else None,
        _limit(info.metadata.get("limit", "")) if has_info else None,
    )


def _limit(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(HIGHEST_LIMIT))):
        return None
    limit = int(text)
    return limit if limit <= HIGHEST_LIMIT else None
