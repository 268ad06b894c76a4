"""W3C trace context: the `traceparent` that a call may carry (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TRACEPARENT = "traceparent"

_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class TraceContext:
    """The span that a call is a part of.

    Attributes:
        trace_id: of the whole trace, 32 hexadecimal digits.
        span_id: of the caller's span, 16 hexadecimal digits.
        is_sampled: whether the caller records it.
    """

    trace_id: str
    span_id: str
    is_sampled: bool


def trace_context_from(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The trace context of a call; None if it carries none, several or one that is malformed."""
    given = [value for key, value in metadata if key == TRACEPARENT]
    if len(given) != 1 or not isinstance(given[0], str):
        return None
    found = _FORM.fullmatch(given[0])
    if not found or (found[1] == "00" and found[5]):
        return None
    return TraceContext(trace_id=found[2], span_id=found[3], is_sampled=bool(int(found[4], 16) & 1))
