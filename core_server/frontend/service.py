"""The service of collaboration.proto: streams in, streams out, and nothing else of gRPC elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from core_server.access.callers import CALLER, while_allowed
from core_server.access.scopes import Line, scope_of
from core_server.catalogue.errors import Refusal, refusal_of
from core_server.catalogue.served_model import ServedModels
from core_server.frontend.engine_client import EngineClient, Frames
from core_server.frontend.engines import Engines
from core_server.frontend.session import CoreSession
from core_server.observability.metrics import CLOSED, DISCONNECTED
from core_server.observability.observation import Observation, SessionObservation
from ssd2.errors import CoreBusy, CoreStopping, CoreTimeout, ModelBroken, ProtocolViolation
from ssd2.wire import collaboration_pb2 as pb
from ssd2.wire import collaboration_pb2_grpc as pb_grpc
from ssd2.wire.codec import logits_to_proto, model_card_to_proto, open_from_proto

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["CollaborationService"].full_name

ABORT_TIMEOUT_S = 5.0
"""`abort` waits until the agent has read all that was sent before: for ever, if it reads no more."""

OPEN_TIMEOUT_S = 10.0
"""How long an agent may take to send Open: no limit of sessions holds it back before."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)
_Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class CallContext(Protocol):
    """Interface of a call that the service needs, as gRPC's own context has it."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: _Metadata = ()) -> NoReturn:
        """End the call with a status; raises to say so."""


class StreamContext(CallContext, Line, Protocol):
    """Interface of a stream that it needs."""

    def invocation_metadata(self) -> _Metadata | None:
        """Return the metadata that the call came with."""

    async def read(self) -> object:
        """The next message's bytes; gRPC's EOF if there is none."""

    async def write(self, message: bytes) -> None:
        """Send a message."""


class CollaborationService(pb_grpc.CollaborationServiceServicer):
    """Answer agents with the models that are served.

    The log says when a session began and how it ended. It never holds what an agent sent, and so
    neither the text of an error that speaks of it: only the error's code.
    """

    def __init__(
        self,
        engines: Engines,
        *,
        max_sessions: int,
        answer_timeout_s: float,
        session_timeout_s: float | None = None,
        speculation: int = 0,
        observation: Observation | None = None,
    ) -> None:
        """Set up the service.

        Args:
            engines: have the models.
            max_sessions: answers in progress at a time; the engines have a slot for each.
            answer_timeout_s: how long an agent may be silent, and how long it may leave logits unread.
            session_timeout_s: how long an answer may take; None for as long as its agent goes on with it.
            speculation: timesteps that are computed ahead at most, whatever an agent asks for.
            observation: of the server; None for one of its own.
        """
        self._engines, self._models = engines, ServedModels(engines.models)
        self._max_sessions, self._speculation = max_sessions, speculation
        self._answer_timeout_s, self._session_timeout_s = answer_timeout_s, session_timeout_s
        self._observation = observation or Observation()
        self._observation.metrics.expect([served.name for served in engines.models])
        self._sessions_active = 0
        self._numbers = itertools.count()
        self._is_over = asyncio.Event()

    @property
    def sessions_active(self) -> int:
        """Answers in progress."""
        return self._sessions_active

    def end_answers(self) -> None:
        """End the answers in progress: what gRPC itself would tell their agents is no reason."""
        self._is_over.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler that a server passes calls to.

        Calls are of bytes: so what is counted is what travels, and bytes that are no message end in an error of ours;
        gRPC would tell the agent the text of a deserializer's exception.
        """
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "GetModelCard": grpc.unary_unary_rpc_method_handler(self.GetModelCard),
            "Collaborate": grpc.stream_stream_rpc_method_handler(self.Collaborate),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def GetModelCard(self, data: bytes, context: CallContext) -> bytes:  # noqa: N802  # the contract's name
        """Return the card of the model that fits the request."""
        try:
            with self._observation.session(()):
                request = _parsed(pb.GetModelCardRequest, data)
                return model_card_to_proto(self._models.find(request.model, request.family).card).SerializeToString()
        except Exception as error:
            await refuse(context, refusal_of(error))
            raise

    async def Collaborate(  # noqa: N802  # the contract's name
        self, request_iterator: object, context: StreamContext
    ) -> None:
        """One answer."""
        try:
            with self._observation.session(context.invocation_metadata() or ()) as seen:
                agent = _AgentStream(context, self._answer_timeout_s, seen)
                await while_allowed(self._collaborate(agent, seen, scope_of(context)))
        except Exception as error:
            await refuse(context, refusal_of(error))

    async def _collaborate(self, agent: _AgentStream, seen: SessionObservation, scope: str | None) -> None:
        opening = await agent.read(OPEN_TIMEOUT_S)
        if opening is None:
            return
        if opening.WhichOneof("message") != "open":
            raise ProtocolViolation("a stream must begin with Open; the agent sent something else first")
        request = open_from_proto(opening.open)
        request = replace(request, speculation=min(request.speculation, self._speculation))
        with CALLER.get().session(), self._slot():
            served = self._models.find(request.model, request.family)
            if served.name in self._engines.broken_models:
                raise ModelBroken(f"the model {served.name} is broken; ask another core, and tell this one's provider")
            session = CoreSession(next(self._numbers), request, served)
            engine = self._engines.for_answer(served.name)
            # Before anything is waited for: others may come meanwhile, and find these tokens left, or this slot free.
            CALLER.get().count(request.block_size)
            with engine.answer(session.begin(scope)) as frames:
                seen.opened(served.name, self._sessions_active, self._max_sessions, CALLER.get().id)
                await agent.write(pb.CollaborateResponse(opened=pb.Opened(session_id=seen.id)))
                seen.end = await self._answer(agent, session, engine, frames)
            if seen.end == CLOSED:
                seen.finished(request.block_size)

    async def _answer(self, agent: _AgentStream, session: CoreSession, engine: EngineClient, frames: Frames) -> str:
        """Send logits for every projection until the agent has had enough; says how it ended."""
        turns = asyncio.Semaphore(0)  # one for each timestep whose logits have been sent
        sending = asyncio.create_task(_send_frames(agent, frames, turns))
        listening = asyncio.create_task(_take_projections(agent, session, engine, turns))
        tasks = {sending, listening, asyncio.create_task(self._end())}
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._session_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise CoreTimeout(
                    f"the answer took more than {self._session_timeout_s:g} s, so the core gave it up; ask again"
                )
            return done.pop().result() or CLOSED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        """Wait until answers are ended.

        Raises:
            CoreStopping: then.
        """
        await self._is_over.wait()
        raise CoreStopping("the core is shutting down; ask again in a moment")

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the sessions that the server has room for, given back whatever happens."""
        if self._sessions_active >= self._max_sessions:
            raise CoreBusy(f"the core is at its limit of {self._max_sessions} answers at a time; ask again in a moment")
        self._sessions_active += 1
        try:
            yield
        finally:
            self._sessions_active -= 1


async def _send_frames(agent: _AgentStream, frames: Frames, turns: asyncio.Semaphore) -> None:
    """Send what the engine computes, for as long as the answer goes on."""
    sent = 0
    while True:
        frame = await frames.next()
        await agent.write(pb.CollaborateResponse(block_logits=logits_to_proto(frame.at, frame.logits, frame.guess)))
        if frame.at.number == sent:  # else it replaces one that was guessed wrongly
            sent += 1
            turns.release()
        agent.seen.gave_logits(frame.at, is_guess=bool(frame.guess))


async def _take_projections(
    agent: _AgentStream, session: CoreSession, engine: EngineClient, turns: asyncio.Semaphore
) -> str:
    """Hand on what the agent sends; says how it ended."""
    while True:
        await turns.acquire()  # until then the agent has no time to answer in
        began = time.monotonic()
        message = await agent.read()
        kind = message.WhichOneof("message") if message is not None else None
        if message is None or kind == "close":
            return CLOSED if kind == "close" else DISCONNECTED
        if kind != "projection":
            raise ProtocolViolation("a Projection or Close was due; the agent sent something else")
        advance = session.advance(message.projection)
        committed_tokens = len(advance.projected.token_ids) if advance.is_commit else 0
        agent.seen.took_projection(time.monotonic() - began, committed_tokens)
        engine.send(advance)
        CALLER.get().count(session.block_size, session.due.step)  # of the timestep that begins


class _AgentStream:
    """The agent's end of a stream; every wait for it is bounded.

    Attributes:
        seen: whoever watches it.
    """

    def __init__(self, rpc_context: StreamContext, timeout_s: float, seen: SessionObservation) -> None:
        self._rpc_context, self._timeout_s, self.seen = rpc_context, timeout_s, seen

    async def read(self, within_s: float = math.inf) -> pb.CollaborateRequest | None:
        """The next message; None if the agent is gone.

        Args:
            within_s: how long to wait for it, where that is shorter than for an answer.

        Raises:
            CoreTimeout: if it is silent for too long.
            ProtocolViolation: if it sent something that is no message.
        """
        data = await self._bounded(self._rpc_context.read(), "sent nothing", within_s)
        if not isinstance(data, bytes):
            return None  # it is gRPC's EOF
        self.seen.received(len(data))
        return _parsed(pb.CollaborateRequest, data)

    async def write(self, message: pb.CollaborateResponse) -> None:
        """Send a message.

        Raises:
            CoreTimeout: if the agent does not read for too long.
        """
        data = message.SerializeToString()
        await self._bounded(self._rpc_context.write(data), "read nothing")
        self.seen.sent(len(data))

    async def _bounded(self, action: Awaitable[_T], what: str, within_s: float = math.inf) -> _T:
        timeout_s = min(self._timeout_s, within_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await action
        except TimeoutError as error:
            raise CoreTimeout(f"the agent {what} for {timeout_s:g} s, so the core gave up; ask again") from error


def _parsed(kind: type[_M], data: bytes) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolViolation(
            "the agent sent bytes that do not parse; install the same release on both sides"
        ) from error


async def refuse(rpc_context: CallContext, refusal: Refusal) -> None:
    """End a call with a status, its public text, the error's code and when to ask again."""
    try:
        async with asyncio.timeout(ABORT_TIMEOUT_S):
            await rpc_context.abort(refusal.status, refusal.message, refusal.trailing_metadata)
    except TimeoutError:
        _log.warning("the agent stopped reading; it did not receive the status %s", refusal.status.name)
