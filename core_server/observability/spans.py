"""Spans of answers and their timesteps, for OpenTelemetry. They hold names and counts, nothing of an answer's text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core_server.observability.trace_context import TraceContext
from ssd2.algorithm.projection import StepPosition
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer


class Spans:
    """Exporter of a server's spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def answer(self, parent: TraceContext | None, session_id: str, model: str) -> AnswerSpan:
        """Begin the span of an answer.

        Args:
            parent: the span that the call is a part of; None for a trace of its own.
            session_id: as in the log.
            model: that it is by.
        """
        from opentelemetry.context import Context

        context = _context_of(parent) if parent else Context()
        attributes = {"slingshot.session": session_id, "slingshot.model": model}
        return AnswerSpan(self._tracer, self._tracer.start_span("answer", context, attributes=attributes))


class AnswerSpan:
    """The span of one answer, and those of its timesteps below it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span

    def timestep(self, at: StepPosition, *, is_guess: bool, began_ns: int) -> None:
        """A timestep whose logits have been sent.

        Args:
            at: which.
            is_guess: whether they were computed on a guess.
            began_ns: when the agent's word that it goes on from came, since 1970.
        """
        from opentelemetry.trace import set_span_in_context

        attributes = {
            "slingshot.number": at.number,
            "slingshot.block": at.block,
            "slingshot.step": at.step,
            "slingshot.is_guess": is_guess,
        }
        context = set_span_in_context(self._span)
        self._tracer.start_span("timestep", context, attributes=attributes, start_time=began_ns).end()

    def end(self, how: str) -> None:
        """End it.

        Args:
            how: as in the figures.
        """
        self._span.set_attribute("slingshot.end", how)
        self._span.end()


@contextmanager
def spans_to(endpoint: str | None) -> Iterator[Spans | None]:
    """Spans that go to an OTLP endpoint, the last of them on leaving; None for no endpoint.

    Args:
        endpoint: its URL, of OTLP over gRPC, such as http://localhost:4317.

    Raises:
        InvalidParameter: if the extra `otel` is not installed.
    """
    if endpoint is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidParameter(
            "exporting spans requires OpenTelemetry; install it with: pip install 'slingshot[otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "slingshot-core"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    try:
        yield Spans(provider.get_tracer("slingshot.core"))
    finally:
        provider.shutdown()


def _context_of(parent: TraceContext) -> Context:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    span = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, TraceFlags(parent.is_sampled))
    return set_span_in_context(NonRecordingSpan(span))
