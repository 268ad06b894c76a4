"""When to ask again, as gRPC's richer errors say it: a google.rpc.Status with a RetryInfo, beside the plain status."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that holds it."""

LONGEST_RETRY_S = 3600.0
"""What a longer time is read as: the other side may write anything."""


def status_details(code: int, message: str, retry_after_s: float) -> bytes:
    """A status that says when to ask again.

    Args:
        code: of the call's status.
        message: of it.
        retry_after_s: seconds to wait.
    """
    status, info = Status(code=code, message=message), RetryInfo()
    info.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
    status.details.add().Pack(info)
    serialized: bytes = status.SerializeToString()
    return serialized


def retry_after_s(details: bytes) -> float | None:
    """The seconds to wait that a status gives, an hour at most; None if it gives none, or is none."""
    try:
        for detail in Status.FromString(details).details:
            info = RetryInfo()
            if detail.Unpack(info):
                seconds: float = info.retry_delay.ToMilliseconds() / 1000
                return min(max(0.0, seconds), LONGEST_RETRY_S)
    except DecodeError:
        pass
    return None
