"""An engine that computes nothing: for each timestep it asks an upstream, for many answers side by side."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from core_server.catalogue.distribution import SECONDS, SIZES, Tally
from core_server.catalogue.engine_messages import Alive, Begin, Command, Computed, End, Failed, Report
from core_server.engine.scheduler import Progress, Result
from core_server.engine.upstream.faults import UpstreamFault
from core_server.engine.upstream.model import UpstreamModel
from core_server.engine.upstream.replies import Largest
from core_server.engine.upstream.watch import Watch
from core_server.observability.logs import fields, frames
from ssd2.algorithm.next_token import NextTokenSampler
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.errors import ProtocolViolation, SlingshotError
from ssd2.models.lane import BlockState
from ssd2.wire.tensors import pack_largest_of

_log = logging.getLogger(__name__)


@dataclass
class _Session:
    """One answer in progress.

    Attributes:
        number: of the answer.
        progress: how far it has come.
        scope: secret name of the answers that may share the upstream's prefix cache.
        asked: the timestep that is being asked for; None if none is.
        asking: that request; there is one at a time.
    """

    number: int
    progress: Progress
    scope: str
    asked: BlockState | None = None
    asking: asyncio.Task[None] | None = None

    def stop_asking(self) -> None:
        if self.asking and self.asking is not asyncio.current_task():
            self.asking.cancel()
        self.asked = self.asking = None


# See docs/decisions/040-an-upstream-computes.md.
class UpstreamEngine:
    """Answers that an upstream computes; at most one request of each is under way.

    Attributes:
        watch: knows whether the upstream computes; whoever runs the engine runs it too.
    """

    def __init__(self, model: UpstreamModel, slots: int, report: Callable[[Report], None]) -> None:
        """Begin without an answer.

        Args:
            model: that the upstream computes.
            slots: answers at a time; the front end begins no more.
            report: tells the front end something.
        """
        self._model, self._slots, self._report = model, slots, report
        self.watch = Watch(model.probe)
        self._sessions: dict[int, _Session] = {}
        self._secret = secrets.token_bytes(32)
        self._step_seconds, self._batch_size = Tally(SECONDS), Tally(SIZES)

    def handle(self, command: Command) -> None:
        """Take in what the front end says, and ask for whatever is due; an answer may have ended meanwhile."""
        if isinstance(command, Begin):
            progress = Progress(request=command.request, sampler=NextTokenSampler)
            self._sessions[command.session] = _Session(command.session, progress, self._scope(command.scope))
        elif session := self._sessions.get(command.session):
            if isinstance(command, End):
                self._drop(session)
            else:
                try:
                    session.progress.advance(command.projected, is_commit=command.is_commit)
                except ProtocolViolation as error:
                    self._end(session, error)
        self._ask()

    def alive(self) -> Alive:
        """Return how the engine stands."""
        waiting = sum(session.progress.waiting is not None for session in self._sessions.values())
        figures = self._step_seconds.taken(), self._batch_size.taken()
        fault = self.watch.fault and f"the upstream {self.watch.fault}"
        return Alive(len(self._sessions), self._slots, waiting, *figures, fault)

    def close(self) -> None:
        """Drop all answers."""
        for session in list(self._sessions.values()):
            self._drop(session)

    def _scope(self, scope: str | None) -> str:
        """Name a scope to the upstream, so that nobody's prompt is told by how fast another one is read."""
        name = secrets.token_bytes(32) if scope is None else scope.encode()
        return hashlib.blake2b(name, key=self._secret, digest_size=32).hexdigest()

    def _ask(self) -> None:
        """Ask for all that agents wait for; else, while nobody waits, for what they probably will."""
        sessions = self._sessions.values()
        for session in sessions:
            waiting = session.progress.waiting
            if waiting and session.asked != waiting:
                session.stop_asking()  # a guess that was wrong
                self._start(session, waiting)
        if not any(session.progress.waiting for session in sessions):
            for session in sessions:
                if not session.asking and (guess := session.progress.guess()):
                    self._start(session, guess)

    def _start(self, session: _Session, state: BlockState) -> None:
        session.asked = state
        session.asking = asyncio.create_task(self._compute(session, state))

    async def _compute(self, session: _Session, state: BlockState) -> None:
        """Ask for one timestep and hand it out; the answer ends if that fails."""
        began, request = time.perf_counter(), session.progress.request
        self._batch_size.add(sum(other.asking is not None for other in self._sessions.values()))
        token_ids = (*request.prompt_ids, *state.answer_ids)
        try:
            largest = await self._model.largest(token_ids, request.logits_format.k, request.vocab_size, session.scope)
            self.watch.answered()
            self._step_seconds.add(time.perf_counter() - began)
            self._hand_out(session, state, largest)
        except UpstreamFault as fault:
            _log.error("an answer ended: the upstream %s", fault.reason, extra=fields(error=fault.error.code))
            self.watch.suspect()
            self._end(session, fault.error)
        except Exception as error:
            name = type(error).__name__
            _log.error("an answer failed with %s", name, extra=fields(error=name, frames=frames(error)))
            self._end(session, None)
        self._ask()

    def _hand_out(self, session: _Session, state: BlockState, largest: Largest) -> None:
        progress = session.progress
        guess = () if progress.waiting else state.last_tokens(progress.request.block_size)
        packed = pack_largest_of(
            largest.ids,
            largest.log_probabilities,
            largest.tail,
            progress.request.logits_format,
            progress.request.vocab_size,
        )
        self._report(Computed(session.number, state.at, packed, guess))
        progress.waiting = session.asked = session.asking = None
        progress.results.append(Result(state, ProjectedTokens(largest.ids[:1]), None))

    def _end(self, session: _Session, error: SlingshotError | None) -> None:
        """End an answer that cannot go on."""
        self._drop(session)
        self._report(Failed(session.number, error))

    def _drop(self, session: _Session) -> None:
        self._sessions.pop(session.number, None)
        session.stop_asking()
