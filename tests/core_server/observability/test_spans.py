"""Spans of answers, and how they leave."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from core_server.config import ServerConfig
from core_server.engine.loaded_model import LoadedModel
from core_server.frontend.engines import Engines
from core_server.observability.observation import Observation
from core_server.observability.spans import Spans, spans_to
from ssd2.algorithm.params import DecodingParams
from ssd2.errors import InvalidParameter
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire.codec import open_to_proto
from tests.core_server.conftest import ending, engine_in_this_process, eventually, open_request, serving

PARAMS = DecodingParams(block_size=8, max_tokens=16, steps=2, stop=0.4)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_no_endpoint_is_no_spans() -> None:
    with spans_to(None) as spans:
        assert spans is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidParameter, match=r"pip install 'slingshot\[otel\]'"), spans_to("http://localhost:4317"):
        pass


class Recorded:
    """A span as a tracer of the tests keeps it."""

    def __init__(self, name: str, parent: Any, attributes: dict[str, Any], start_time: int | None) -> None:
        self.name, self.parent, self.attributes, self.start_time = name, parent, dict(attributes), start_time
        self.is_ended = False

    def set_attribute(self, name: str, value: object) -> None:
        self.attributes[name] = value

    def end(self) -> None:
        self.is_ended = True


async def test_spans_hang_below_the_callers(served: LoadedModel) -> None:
    class Span(Recorded, trace.NonRecordingSpan):
        def get_span_context(self) -> Any:
            return trace.SpanContext(int(TRACE, 16), 1, is_remote=False)

    class Tracer:
        spans: list[Span] = []  # noqa: RUF012

        def start_span(self, name: str, context: Any, *, attributes: Any, start_time: int | None = None) -> Span:
            self.spans.append(Span(name, trace.get_current_span(context), attributes, start_time))
            return self.spans[-1]

    observation = Observation(Spans(Tracer()))
    config = ServerConfig({}, grace_s=0.0)
    async with (
        engine_in_this_process(served, slots=16) as engine,
        serving(Engines([engine]), config, observation) as (
            server,
            agent,
        ),
    ):
        call = agent.stub.Collaborate(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),))
        await call.write(pb.CollaborateRequest(open=open_to_proto(open_request(served, PARAMS))))
        await call.read()
        await call.read()
        await call.write(pb.CollaborateRequest(projection=pb.Projection(token_ids=[5] * 8)))
        await call.read()
        await call.write(pb.CollaborateRequest(close=pb.Close()))
        await ending(call)
        await eventually(lambda: server.sessions_active == 0)
        await eventually(lambda: observation.metrics.sessions_ended["core", "closed"] == 1)

    answer, *timesteps = Tracer.spans
    parent = answer.parent.get_span_context()
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)
    assert (parent.is_remote, parent.trace_flags.sampled) == (True, True)
    assert answer.name == "answer"
    assert (answer.attributes["slingshot.model"], answer.attributes["slingshot.end"]) == ("core", "closed")
    assert [span.name for span in timesteps] == ["timestep"] * 2
    assert [span.attributes["slingshot.step"] for span in timesteps] == [0, 1]
    assert all(span.parent is answer for span in timesteps)
    assert timesteps[0].start_time < timesteps[1].start_time
    assert all(span.is_ended for span in Tracer.spans)
    names = {name for span in Tracer.spans for name in span.attributes}
    known = {"session", "model", "end", "number", "block", "step", "is_guess"}
    assert names == {f"slingshot.{name}" for name in known}


def test_spans_leave_for_the_endpoint_before_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(OTLPSpanExporter, "export", lambda _, spans: sent.extend(spans) or SpanExportResult.SUCCESS)
    with spans_to("http://localhost:4317") as spans:
        assert spans is not None
        spans.answer(None, "ab", "core").end("closed")
    (span,) = sent
    assert (span.name, span.attributes["slingshot.end"]) == ("answer", "closed")
    assert span.resource.attributes["service.name"] == "slingshot-core"
