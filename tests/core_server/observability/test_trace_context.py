from __future__ import annotations

import pytest

from core_server.observability.trace_context import TraceContext, trace_context_from

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [(f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-02", False), (f"cc-{TRACE}-{SPAN}-01-later", True)],
)
def test_a_trace_context_is_read(value: str, is_sampled: bool) -> None:
    metadata = (("user-agent", "grpc"), ("traceparent", value))
    assert trace_context_from(metadata) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01".encode(),
    ],
)
def test_what_is_no_trace_context_is_ignored(value: str | bytes) -> None:
    assert trace_context_from((("traceparent", value),)) is None


def test_two_trace_contexts_are_none() -> None:
    pair = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    assert trace_context_from((pair, pair)) is None
    assert trace_context_from(()) is None
