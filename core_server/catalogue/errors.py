"""Errors as a core sends them: the specification on the error's class, and nothing of any other exception."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from ssd2.errors import SlingshotError
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.status_details import STATUS_DETAILS_KEY, Details, details_to_bytes

INTERNAL_MESSAGE = "the core failed on this answer; ask again, and tell its provider if it happens again"
"""Sent for any error that is not public: its text was written for the provider and may hold anything."""


@dataclass(frozen=True)
class Refusal:
    """An error as the agent gets it.

    Attributes:
        status: of the call.
        message: public text.
        code: of the error, for the trailing metadata; None for an unexpected exception.
        details: for the trailing metadata as well; None if there are none to tell.
    """

    status: grpc.StatusCode
    message: str
    code: str | None
    details: Details | None = None

    @property
    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Trailing metadata of the status."""
        code = ((ERROR_CODE_KEY, self.code),) if self.code else ()
        if self.details is None or self.details == Details():
            return code
        number: int = self.status.value[0]
        return (*code, (STATUS_DETAILS_KEY, details_to_bytes(number, self.message, self.details)))


def refusal_of(error: Exception) -> Refusal:
    """Return what the agent is sent of an error."""
    if not isinstance(error, SlingshotError):
        return Refusal(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, None)
    status = grpc.StatusCode[error.grpc_status]
    if not error.is_public:
        return Refusal(status, INTERNAL_MESSAGE, error.code)
    return Refusal(status, str(error), error.code, Details(error.retry_after_s, error.parameter, error.limit))
