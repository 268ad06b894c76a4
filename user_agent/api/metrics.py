"""GET /metrics: the agent's figures, for Prometheus. No text of a question, an answer or a document is in them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from user_agent.api.errors import documented_beside_events
from user_agent.api.state import AppState, state_of

router = APIRouter(tags=["Health"])


class _Figures(Collector):
    """Taken when they are asked for."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        done = self._state.answering.figures
        answers = CounterMetricFamily("slingshot_answers", "Answers, by outcome", labels=["end"])
        for end, count in done.ends.items():
            answers.add_metric([end], count)
        yield answers
        yield CounterMetricFamily("slingshot_tokens", "Tokens of answers", value=done.tokens)
        yield CounterMetricFamily("slingshot_timesteps", "Timesteps decoded", value=done.timesteps)
        yield CounterMetricFamily("slingshot_answer_seconds", "Duration of answers", value=done.seconds)
        yield GaugeMetricFamily("slingshot_answers_open", "Answers computed or waiting", self._state.answering.answers)
        totals = self._state.stores.ledger.totals()
        crossed = CounterMetricFamily("slingshot_wire_bytes", "Bytes of messages in the ledger", labels=["direction"])
        crossed.add_metric(["up"], totals.up.wire_bytes)
        crossed.add_metric(["down"], totals.down.wire_bytes)
        yield crossed
        documents = GaugeMetricFamily("slingshot_documents", "Documents, by state", labels=["state"])
        for name, count in Counter(document.state for document in self._state.stores.documents.documents()).items():
            documents.add_metric([name], count)
        yield documents


@router.get(
    "/metrics",
    response_class=Response,
    responses={**documented_beside_events(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """The agent's figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Figures(state_of(request)))
    return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)
