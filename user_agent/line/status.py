"""The end of a call to a core, read as an error of ours."""

from __future__ import annotations

import asyncio

import grpc

from ssd2 import errors
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.status_details import STATUS_DETAILS_KEY, Details, details_from_bytes
from user_agent.errors import CoreLost
from user_agent.store.printable import printable

MAX_DETAILS = 500
"""Characters of a core's message that are shown."""


def no_message(address: str) -> errors.ProtocolViolation:
    """Return the error for bytes that gRPC could not parse."""
    return errors.ProtocolViolation(
        f"{address} is not a Slingshot core (it sent bytes that do not parse); check the address", parameter="core"
    )


def line_closed(address: str) -> CoreLost:
    """Return the error of a call that is in progress when this device closes its line, or that comes after it."""
    error = CoreLost(f"this device closed the connection to the core at {address}; ask again")
    error.retry_after_s = None  # no other try on that line helps
    return error


def is_cancelled() -> bool:
    """Return True if the task is cancelled; grpc.aio raises CancelledError for a call whose channel is closed too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def error_of_status(
    code: grpc.StatusCode, details: str | None, trailer: grpc.aio.Metadata | None, address: str, when: str
) -> errors.SlingshotError:
    """Return the error that a status stands for: by the core's own code, else by gRPC's.

    Args:
        code: of the status.
        details: its text.
        trailer: metadata that came with it.
        address: of the core.
        when: moment of its arrival, in words.
    """
    sent = dict(trailer or ())
    status = sent.get(STATUS_DETAILS_KEY)
    more = details_from_bytes(status) if isinstance(status, bytes) else Details()
    error = _own(sent.get(ERROR_CODE_KEY), details, more, address) or _by_grpc(code, address, when)
    if more.retry_after_s is not None:
        error.retry_after_s = more.retry_after_s
    return error


def _own(code: str | bytes | None, text: str | None, more: Details, address: str) -> errors.SlingshotError | None:
    is_known = more.parameter in errors.PARAMETERS_SENT_BY_CORES
    parameter, limit = (more.parameter, more.limit) if is_known else (None, None)
    for kind in errors.SENT_BY_CORES:
        if kind.code == code:
            message = f"the core at {address} refused: {printable(text or '')[:MAX_DETAILS]}"
            return kind(message, parameter=parameter, limit=limit)
    return None


def _by_grpc(code: grpc.StatusCode, address: str, when: str) -> errors.SlingshotError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return CoreLost(f"the connection to the core at {address} broke {when}; ask again")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.CoreTimeout(f"the core at {address} did not answer in time {when}; ask again")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.CoreBusy(f"the core at {address} is full, or a message exceeded its size limit; ask again later")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.ProtocolVersionMismatch(
            f"{address} is not a Slingshot core of this version; check the address, or install the same release on "
            "both sides",
            parameter="core",
        )
    return CoreLost(
        f"the core at {address} failed {when} ({code.name}); ask again, and tell its provider if it happens again"
    )
