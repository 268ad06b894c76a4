"""The agent's line to its core: the configured one, or a core that it starts itself, a pair's or the demo's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from contextlib import AsyncExitStack
from typing import TypeVar

from ssd2.errors import CoreError
from ssd2.wire.codec import OpenRequest
from user_agent.errors import CoreLost, CoreUnavailable, OwnCoreEnded
from user_agent.line.client import CoreClient
from user_agent.line.connection import CoreConnection, is_local
from user_agent.line.core_key import credentials_for
from user_agent.line.credentials import CoreCredentials
from user_agent.line.own_core import OwnCore, ended, own_core
from user_agent.line.patience import OnWait
from user_agent.line.resuming_stream import ResumingStream
from user_agent.line.settings import LineSettings
from user_agent.store.ledger import Ledger

OWN_TIMEOUT_S = 120.0
"""Minimum for a reply of a core of its own: beside other programs, a long prompt takes a CPU a minute."""

RESTART_PATIENCE_S = 30.0
"""How long an answer waits for a core of its own to be there again; a start takes seconds."""

_T = TypeVar("_T")


def credentials_of(settings: LineSettings) -> CoreCredentials:
    """Return the certificates and the key that the line to a core is made with.

    Raises:
        SlingshotError: if they do not go together, or cannot be read.
    """
    return credentials_for(
        settings.core,
        ca=settings.ca,
        client_certificate=settings.client_certificate,
        client_key=settings.client_key,
        insecure=settings.insecure,
    )


def how_protected(settings: LineSettings, address: str) -> str:
    """Say who can read along on the line to a core."""
    if settings.ca:
        return "encrypted"
    if is_local(address):
        return "on this machine"
    return "NOT encrypted: anyone on the network path can read questions and answers (insecure is set)"


class _OwnClient(CoreClient):
    """The line to a core of its own, which waits for another start of it, and says what has become of it."""

    def __init__(self, own: OwnCore, settings: LineSettings, ledger: Ledger) -> None:
        timeout_s = max(settings.timeout, OWN_TIMEOUT_S)  # whether it lives is known without asking
        super().__init__(own.address, ledger, answer_timeout_s=timeout_s, patience_s=RESTART_PATIENCE_S)
        self._own = own

    async def open(self, request: OpenRequest, on_wait: OnWait | None = None) -> ResumingStream:
        """See `CoreClient.open`."""

        def tell(error: CoreError, seconds: float) -> None:
            if on_wait:
                on_wait(self._own.failure or error, seconds)

        return await super().open(request, tell)

    async def _anywhere(
        self, ask: Callable[[CoreConnection], Awaitable[_T]], broken: Container[CoreConnection] = ()
    ) -> _T:
        """See `CoreClient`; what that says of addresses and options helps nobody here."""
        failure = self._own.failure
        if failure and failure.retry_after_s is None:  # another program may have taken the port
            raise failure
        try:
            return await super()._anywhere(ask, broken)
        except CoreUnavailable as error:  # perhaps a moment before its end is known
            raise self._own.failure or ended(self._own.title) from error
        except CoreLost as error:
            raise self._own.failure or error from error


class CoreLine:
    """One line at a time.

    Attributes:
        client: None where λ is 1.
        address: HOST:PORT, or None.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stack = AsyncExitStack()
        self.client: CoreClient | None = None
        self.address: str | None = None
        self._own: OwnCore | None = None
        self._pair = ""

    @property
    def own_title(self) -> str | None:
        """The core that it has started itself on this machine, in words; None if there is none."""
        return self._own.title if self._own else None

    @property
    def is_demo(self) -> bool:
        """True if the core is the demo's, on this machine."""
        return self._own is not None and not self._pair

    @property
    def failure(self) -> OwnCoreEnded | None:
        """Why a core of its own cannot be asked just now; None where it runs, or it is another one."""
        return self._own.failure if self._own else None

    async def connect(self, settings: LineSettings | None, pair: str = "") -> None:
        """Take up a core; the line before it is dropped, with answers that are in progress.

        Args:
            settings: of the line; without an address a core is started on this machine. None asks no core.
            pair: whose core is started; empty for the demo's.

        Raises:
            SlingshotError: if the address is none, or its own core does not start; then the line stays as it was.
        """
        async with AsyncExitStack() as opening:
            own, client = None, None
            if settings:
                own = await opening.enter_async_context(own_core(pair)) if settings.core is None else None
                line = _OwnClient(own, settings, self._ledger) if own else self._configured(settings)
                client = await opening.enter_async_context(line)
            before, self._stack = self._stack, opening.pop_all()
        self.client, self._own, self._pair = client, own, pair
        self.address = own.address if own else settings.core if settings else None
        await before.aclose()

    def _configured(self, settings: LineSettings) -> CoreClient:
        credentials = credentials_of(settings)
        return CoreClient(settings.core or "", self._ledger, credentials=credentials, answer_timeout_s=settings.timeout)

    async def close(self) -> None:
        """Hang up; a core of its own ends."""
        await self._stack.aclose()
