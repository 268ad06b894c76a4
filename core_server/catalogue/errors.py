"""What an error looks like from outside: its gRPC status, and whether its text may leave the server."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from ssd2 import errors
from ssd2.wire.codec import ERROR_CODE_KEY
from ssd2.wire.retry import STATUS_DETAILS_KEY, status_details

INTERNAL_MESSAGE = "the core failed on this answer; ask again, then tell its provider"
"""Sent for whatever the catalogue does not know: the text of such an exception was written for its
developers and may hold anything."""


@dataclass(frozen=True)
class Entry:
    """How one kind of error is told.

    Attributes:
        status: of the call.
        is_public: whether the agent is sent the error's own message; else `INTERNAL_MESSAGE`.
    """

    status: grpc.StatusCode
    is_public: bool


@dataclass(frozen=True)
class Refusal:
    """What the agent is told.

    Attributes:
        status: of the call.
        message: public text.
        code: of the error, for the trailing metadata; None for an unexpected exception.
        retry_after_s: when to ask again, for the trailing metadata as well; None if that is no use.
    """

    status: grpc.StatusCode
    message: str
    code: str | None
    retry_after_s: float | None = None

    @property
    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What goes with the status."""
        code = ((ERROR_CODE_KEY, self.code),) if self.code else ()
        if self.retry_after_s is None:
            return code
        number: int = self.status.value[0]
        return (*code, (STATUS_DETAILS_KEY, status_details(number, self.message, self.retry_after_s)))


CATALOGUE: dict[type[errors.SlingshotError], Entry] = {
    errors.InvalidParameter: Entry(grpc.StatusCode.INVALID_ARGUMENT, is_public=True),
    errors.TokenOutOfRange: Entry(grpc.StatusCode.INVALID_ARGUMENT, is_public=True),
    errors.BlockShapeMismatch: Entry(grpc.StatusCode.INVALID_ARGUMENT, is_public=True),
    errors.PromptTooLong: Entry(grpc.StatusCode.INVALID_ARGUMENT, is_public=True),
    errors.ModelMismatch: Entry(grpc.StatusCode.FAILED_PRECONDITION, is_public=True),
    errors.TokenizerMismatch: Entry(grpc.StatusCode.FAILED_PRECONDITION, is_public=True),
    errors.ProtocolVersionMismatch: Entry(grpc.StatusCode.FAILED_PRECONDITION, is_public=True),
    errors.ProtocolViolation: Entry(grpc.StatusCode.INVALID_ARGUMENT, is_public=True),
    errors.CoreBusy: Entry(grpc.StatusCode.RESOURCE_EXHAUSTED, is_public=True),
    errors.CoreTimeout: Entry(grpc.StatusCode.DEADLINE_EXCEEDED, is_public=True),
    errors.CoreLoading: Entry(grpc.StatusCode.UNAVAILABLE, is_public=True),
    errors.CoreStopping: Entry(grpc.StatusCode.UNAVAILABLE, is_public=True),
    errors.EngineLost: Entry(grpc.StatusCode.UNAVAILABLE, is_public=True),
    errors.ModelBroken: Entry(grpc.StatusCode.DATA_LOSS, is_public=True),
    errors.KeyRefused: Entry(grpc.StatusCode.UNAUTHENTICATED, is_public=True),
    errors.SessionLimitReached: Entry(grpc.StatusCode.RESOURCE_EXHAUSTED, is_public=True),
    errors.TokenLimitReached: Entry(grpc.StatusCode.RESOURCE_EXHAUSTED, is_public=True),
    errors.TimestepLimitReached: Entry(grpc.StatusCode.RESOURCE_EXHAUSTED, is_public=True),
    # These name the provider's files and addresses. None of them has a cause in a call.
    errors.DocumentsUnreadable: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.ModelNotFound: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.CheckpointInvalid: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.CoreUnavailable: Entry(grpc.StatusCode.UNAVAILABLE, is_public=False),
    errors.CoreLost: Entry(grpc.StatusCode.UNAVAILABLE, is_public=False),
    errors.DemoCoreEnded: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.JudgeRefused: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.JudgeUnavailable: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.JudgeReplyInvalid: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.StoreKeyWrong: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.StoreUnreadable: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.StoreInUse: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.LedgerUnwritable: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.NotFound: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.AgentBusy: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.InsecureLine: Entry(grpc.StatusCode.INTERNAL, is_public=False),
    errors.KeyringUnusable: Entry(grpc.StatusCode.INTERNAL, is_public=False),
}


def refusal_of(error: Exception) -> Refusal:
    """What the agent is told of an error; of an exception not in the catalogue, only that there was one."""
    if not isinstance(error, errors.SlingshotError) or type(error) not in CATALOGUE:
        return Refusal(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, None)
    entry = CATALOGUE[type(error)]
    message = str(error) if entry.is_public else INTERNAL_MESSAGE
    return Refusal(entry.status, message, error.code, error.retry_after_s)
