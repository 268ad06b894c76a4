"""The line to the core, or to several replicas of it: whichever of them answers."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Container
from functools import partial
from types import TracebackType
from typing import TypeVar

from ssd2 import errors
from ssd2.wire.codec import ModelCard, OpenRequest
from user_agent.line.connection import CoreConnection, replicas_of
from user_agent.line.credentials import CoreCredentials
from user_agent.line.patience import OnWait, Patience
from user_agent.line.resuming_stream import ResumingStream
from user_agent.line.stream import CoreStream
from user_agent.store.ledger import Ledger

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
PATIENCE_S = 10.0

_T = TypeVar("_T")


class CoreClient:
    """Connections to the replicas of one core; one of them is used for as long as it answers."""

    def __init__(
        self,
        address: str,
        ledger: Ledger,
        *,
        credentials: CoreCredentials | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Make a client; nothing is sent before it is used.

        Args:
            address: HOST:PORT; of several replicas, which serve the same model, with commas between them.
            ledger: where every message is entered, before it is sent and when it has come.
            credentials: whom the line trusts and who it says it is; None for a line on this machine, with no key.
            connect_timeout_s: how long to try to reach a replica.
            answer_timeout_s: how long to wait for each of its answers.
            patience_s: how long after all of them failed to begin another try: in the middle of an answer whatever it
                was, before it what is told to be worth one.

        Raises:
            InvalidParameter: if an address is none, a time is no time, or a file cannot be read.
            InsecureLine: if the line would leave this machine unencrypted, and that is not allowed, or a key is sent.
        """
        if not 0 < answer_timeout_s < float("inf"):
            raise errors.InvalidParameter(
                f"timeout is {answer_timeout_s} s; it must be above 0 and finite", parameter="timeout"
            )
        connect = partial(
            CoreConnection,
            ledger=ledger,
            credentials=credentials or CoreCredentials(),
            connect_timeout_s=connect_timeout_s,
            answer_timeout_s=answer_timeout_s,
        )
        self._connections = deque(connect(replica) for replica in replicas_of(address))
        self._connections.rotate(random.randrange(len(self._connections)))  # agents spread over the replicas
        self._patience_s = patience_s

    async def __aenter__(self) -> CoreClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            await connection.close()

    async def connect(self) -> None:
        """Wait until there is a connection; no message is sent.

        Raises:
            CoreUnavailable: if nothing answers at any address, or a certificate does not do.
        """
        await self._anywhere(CoreConnection.connect)

    async def model_card(self, model: str, family: str, on_wait: OnWait | None = None) -> ModelCard:
        """Ask for a model that the core serves.

        Args:
            model: its name, or "" for the first of the family.
            family: of the user model.
            on_wait: told of each wait for another try.

        Raises:
            ModelMismatch: if the core has none such; says which it has.
            KeyRefused: if the core takes no call without a valid key, and this one has none.
            CoreUnavailable: if nothing answers at any address, or a certificate does not do.
            CoreTimeout: if something does, but not in time.
        """
        return await self._patiently(lambda connection: connection.model_card(model, family), on_wait)

    async def open(self, request: OpenRequest, on_wait: OnWait | None = None) -> ResumingStream:
        """Open an answer.

        Args:
            request: for it.
            on_wait: told of each wait for another try, now and while the answer is made.

        Raises:
            SlingshotError: whatever the core refused it with; `CoreUnavailable` if it is not there.
        """
        used, broken = self._connections[0], set[CoreConnection]()

        async def opened(connection: CoreConnection) -> CoreStream:
            nonlocal used
            try:
                stream = await connection.open(request)
            except errors.ModelBroken:
                broken.add(connection)
                raise
            broken.discard(connection)
            used = connection
            return stream

        async def reopened() -> CoreStream:
            self._shun(used)
            return await self._anywhere(opened, broken)

        def leave() -> bool:
            broken.add(used)
            return not broken.issuperset(self._connections)

        stream, patience = await self._patiently(opened, on_wait), Patience(self._patience_s, on_wait)
        return ResumingStream(stream, reopened, patience, leave)

    async def _patiently(self, ask: Callable[[CoreConnection], Awaitable[_T]], on_wait: OnWait | None) -> _T:
        """Ask again for as long as there is hope and patience."""
        patience = Patience(self._patience_s, on_wait)
        while True:
            try:
                return await self._anywhere(ask)
            except errors.CoreError as error:
                if error.retry_after_s is None:
                    raise
                await patience.wait(error)

    async def _anywhere(
        self, ask: Callable[[CoreConnection], Awaitable[_T]], broken: Container[CoreConnection] = ()
    ) -> _T:
        """Ask one replica after the other until one answers.

        Args:
            ask: asks one of them.
            broken: those that are left out; not all of them.

        Raises:
            KeyRefused: at once: what one refuses they all do.
            CoreError: if none does: one that gives hope, else the first.
        """
        failures: list[errors.CoreError] = []
        for connection in [one for one in self._connections if one not in broken]:
            try:
                return await ask(connection)
            except errors.KeyRefused:
                raise
            except errors.CoreError as error:
                failures.append(error)
                self._shun(connection)
        raise next((error for error in failures if error.retry_after_s is not None), failures[0])

    def _shun(self, connection: CoreConnection) -> None:
        """Ask this replica last, unless another answer has found that out."""
        if self._connections[0] is connection:
            self._connections.rotate(-1)
