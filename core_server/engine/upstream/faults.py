"""Faults of an upstream: what the provider's log says of one, and the error that the agent gets."""

from __future__ import annotations

from ssd2.errors import CoreBusy, CoreTimeout, EngineLost, InvalidParameter, ModelBroken, SlingshotError


class UpstreamFault(Exception):
    """No logits can be made of what an upstream sent, or it sent nothing.

    Attributes:
        reason: for the provider's log, after "the upstream"; holds nothing that an agent sent.
        error: for the agent.
        status: of the HTTP response; None where there is none, or it is 200.
    """

    def __init__(self, reason: str, error: SlingshotError, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.error, self.status = reason, error, status


class LacksIds(UpstreamFault):
    """The upstream names tokens by their texts; several ids can have one."""


def unreachable(reason: str, status: int | None = None) -> UpstreamFault:
    """Return the fault of an upstream that has ended, or fails by itself: another attempt may succeed."""
    return UpstreamFault(
        reason, EngineLost("the core has lost the server that computes for it; ask again in a moment"), status
    )


def late(timeout_s: float) -> UpstreamFault:
    """Return the fault of an upstream that takes too long."""
    error = CoreTimeout(
        f"the server that computes for this core did not answer within {timeout_s:g} s; ask again, and tell the "
        "core's provider if it happens again"
    )
    return UpstreamFault(f"did not answer within {timeout_s:g} s", error)


def lied(reason: str, status: int | None = None) -> UpstreamFault:
    """Return the fault of an upstream whose reply is of no use, however often it is asked."""
    return UpstreamFault(reason, _unusable(), status)


def too_few(found: int, k: int) -> UpstreamFault:
    """Return the fault of an upstream whose limit leaves too few entries of an agent's smaller vocabulary."""
    error = InvalidParameter(
        f"of the largest logits that this core can give, only {found} are of tokens that the user model has, and {k} "
        f"were asked for; ask for top-k:{max(1, k // 2)}",
        parameter="logits",
    )
    return UpstreamFault(f"gives only {found} log-probabilities of an agent's smaller vocabulary, not {k}", error)


def lacks_ids() -> LacksIds:
    """Return the fault of an upstream that sends texts of tokens in place of their ids."""
    return LacksIds("sends no token ids with its log-probabilities", _unusable())


def refused(status: int) -> UpstreamFault:
    """Return the fault that an HTTP status other than 200 stands for."""
    reason = f"answered with HTTP status {status}"
    if status == 429:
        busy = CoreBusy("the server that computes for this core is at its limit; ask again in a moment")
        return UpstreamFault(reason, busy, status)
    return unreachable(reason, status) if status >= 500 else lied(reason, status)


def _unusable() -> ModelBroken:
    return ModelBroken("the server that computes for this core sent no usable logits; tell the core's provider")
