"""Observation of a server: figures, log lines and spans of every answer, and nothing of its content."""

from __future__ import annotations

import logging
import secrets
import time
from asyncio import CancelledError
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from core_server.observability.logs import fields, frames
from core_server.observability.metrics import CANCELLED, CLOSED, INTERNAL, Metrics
from core_server.observability.readiness import Readiness
from core_server.observability.spans import AnswerSpan, Spans
from core_server.observability.trace_context import TraceContext, trace_context_from
from ssd2.algorithm.projection import StepPosition
from ssd2.errors import SlingshotError

_log = logging.getLogger(__name__)


class Observation:
    """Readiness, metrics and spans of one server.

    Attributes:
        readiness: whether it can take an answer.
        metrics: its figures.
    """

    def __init__(self, spans: Spans | None = None) -> None:
        """Begin.

        Args:
            spans: where spans of answers go; None for none.
        """
        self.readiness = Readiness()
        self.metrics = Metrics(self.readiness)
        self._spans = spans

    def session(self, metadata: Iterable[tuple[str, str | bytes]]) -> SessionObservation:
        """Watch one call, from before its first message on.

        Args:
            metadata: that it came with.
        """
        return SessionObservation(self.metrics, self._spans, trace_context_from(metadata))


class SessionObservation:
    """One call, watched until its `with` block is left: how it is left is how the call ended.

    Attributes:
        id: a name for it in the log and for its agent.
        end: how the answer ended, where that was no error.
    """

    def __init__(self, metrics: Metrics, spans: Spans | None, trace: TraceContext | None) -> None:
        self._metrics, self._spans, self._trace = metrics, spans, trace
        self._span: AnswerSpan | None = None
        self._model = ""
        self._key_id: str | None = None
        self._began = time.monotonic()
        self._asked_ns = 0
        self._blocks = self._tokens = self._timesteps = self._bytes_up = self._bytes_down = 0
        self._frames_sent = self._timesteps_sent = 0  # more frames than timesteps where guesses were wrong
        self.id = secrets.token_hex(8)
        self.end = CLOSED

    def opened(self, model: str, active: int, limit: int, key_id: str | None = None) -> None:
        """It is an answer now.

        Args:
            model: that it is by.
            active: answers in progress, this one among them.
            limit: how many there may be.
            key_id: public part of the caller's key; None without one.
        """
        self._model, self._key_id, self._asked_ns = model, key_id, time.time_ns()
        self._metrics.sessions_active += 1
        self._metrics.sessions_opened[model] += 1
        self._count(timesteps=1)
        if self._spans:
            self._span = self._spans.answer(self._trace, self.id, model)
        _log.info("session %s: opened with %s, %d of %d", self.id, model, active, limit, extra=self._fields())

    def received(self, message_bytes: int) -> None:
        """A message has come."""
        self._bytes_up += message_bytes
        self._metrics.message_bytes["up"] += message_bytes

    def sent(self, message_bytes: int) -> None:
        """A message has gone."""
        self._bytes_down += message_bytes
        self._metrics.message_bytes["down"] += message_bytes

    def gave_logits(self, at: StepPosition, *, is_guess: bool) -> None:
        """The agent has been sent a timestep's logits; guesses that were wrong are sent anew."""
        self._frames_sent += 1
        self._timesteps_sent = at.number + 1
        if self._span:
            self._span.timestep(at, is_guess=is_guess, began_ns=self._asked_ns)

    def took_projection(self, seconds: float, committed_tokens: int) -> None:
        """The agent has answered logits.

        Args:
            seconds: that it took for it.
            committed_tokens: if the projection ends its block, else 0.
        """
        self._asked_ns = time.time_ns()
        self._metrics.client_answer_seconds.add(seconds)
        self._count(tokens=committed_tokens, timesteps=1)

    def finished(self, block_size: int) -> None:
        """The agent has closed its answer: its last block, which no commit ends, is done too."""
        self._count(tokens=block_size)

    def _count(self, *, tokens: int = 0, timesteps: int = 0) -> None:
        self._blocks += tokens > 0
        self._tokens += tokens
        self._timesteps += timesteps
        self._metrics.committed_tokens[self._model] += tokens
        self._metrics.timesteps[self._model] += timesteps
        if self._key_id:
            self._metrics.key_tokens[self._model, self._key_id] += tokens
            self._metrics.key_timesteps[self._model, self._key_id] += timesteps

    def __enter__(self) -> SessionObservation:
        return self

    def __exit__(self, _: object, error: BaseException | None, where: TracebackType | None) -> None:
        end = _end_of(error) or self.end
        if self._model:
            self._metrics.sessions_active -= 1
            self._metrics.sessions_ended[self._model, end] += 1
            used = min(self._timesteps, self._timesteps_sent)
            self._metrics.unused_guesses[self._model] += self._frames_sent - used
        elif isinstance(error, Exception):
            self._metrics.rejected[end] += 1
        if self._span:
            self._span.end(end)
        if self._model or error:  # else nothing was asked for
            self._log_end(end, error)

    def _log_end(self, end: str, error: BaseException | None) -> None:
        """In full where it was an answer, and never the text of an error: it may hold what the agent sent."""
        usage = {"blocks": self._blocks, "tokens": self._tokens, "timesteps": self._timesteps}
        totals = {**usage, "bytes_up": self._bytes_up, "bytes_down": self._bytes_down}
        seconds = round(time.monotonic() - self._began, 3)
        about: dict[str, Any] = {"end": end, "seconds": seconds, **totals}
        if isinstance(error, Exception) and not isinstance(error, SlingshotError):
            about |= {"error": type(error).__name__, "frames": frames(error)}
            _log.error("session %s: failed with %s", self.id, about["error"], extra=self._fields(**about))
            return
        level = logging.WARNING if isinstance(error, Exception) else logging.INFO
        said = "session %s: %s after %d blocks, %d tokens, %d timesteps"
        _log.log(level, said, self.id, end, *usage.values(), extra=self._fields(**about))

    def _fields(self, **more: Any) -> dict[str, Any]:
        trace = self._trace
        trace_ids = {"trace_id": trace.trace_id, "parent_span_id": trace.span_id} if trace else {}
        return fields(session=self.id, model=self._model or None, key=self._key_id, **trace_ids, **more)


def _end_of(error: BaseException | None) -> str | None:
    """The label of an end by an error; None if there was none."""
    if error is None:
        return None
    if isinstance(error, CancelledError):
        return CANCELLED
    return error.code if isinstance(error, SlingshotError) else INTERNAL
