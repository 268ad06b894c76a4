"""How a call to a core ended, as an error of ours."""

from __future__ import annotations

import asyncio

import grpc

from ssd2 import errors
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.retry import STATUS_DETAILS_KEY, retry_after_s
from user_agent.store.printable import printable

MAX_DETAILS = 500
"""Characters of a core's message that are shown."""


def no_message(address: str) -> errors.ProtocolViolation:
    """What gRPC gives None for: bytes that it could not read."""
    return errors.ProtocolViolation(f"what answers at {address} is no core: its bytes are no message")


def line_closed(address: str) -> errors.CoreLost:
    """What a call comes to that is in progress when this device closes its line, or that comes after it."""
    error = errors.CoreLost(f"the line to the core at {address} was closed on this device; ask again")
    error.retry_after_s = None  # no other try on that line helps
    return error


def is_cancelled() -> bool:
    """Whether the task is cancelled; grpc.aio raises CancelledError for a call whose channel is closed too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def error_of_status(
    code: grpc.StatusCode, details: str | None, trailer: grpc.aio.Metadata | None, address: str, when: str
) -> errors.SlingshotError:
    """The error that a status stands for: the core's own code first, else by what gRPC says.

    Args:
        code: of the status.
        details: its text.
        trailer: metadata that came with it.
        address: of the core.
        when: it came, in words.
    """
    sent = dict(trailer or ())
    error = _own(sent.get(ERROR_CODE_KEY), details, address) or _by_grpc(code, address, when)
    status = sent.get(STATUS_DETAILS_KEY)
    if isinstance(status, bytes) and (after_s := retry_after_s(status)) is not None:
        error.retry_after_s = after_s
    return error


def _own(code: str | bytes | None, details: str | None, address: str) -> errors.SlingshotError | None:
    for kind in errors.SENT_BY_CORES:
        if kind.code == code:
            return kind(f"the core at {address} refused: {printable(details or '')[:MAX_DETAILS]}")
    return None


def _by_grpc(code: grpc.StatusCode, address: str, when: str) -> errors.SlingshotError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.CoreLost(f"the connection to the core at {address} broke {when}; ask again")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.CoreTimeout(f"the core at {address} did not answer in time {when}; ask again")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.CoreBusy(f"the core at {address} is full, or a message was over its limit; ask again later")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.ProtocolVersionMismatch(f"what answers at {address} is no core of this version")
    return errors.CoreLost(f"the core at {address} failed {when} ({code.name}); ask again, then tell its provider")
