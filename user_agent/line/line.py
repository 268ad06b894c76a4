"""The agent's line to its core: the one that it is configured with, or the demo's, which it starts itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from contextlib import AsyncExitStack
from typing import TypeVar

from ssd2.errors import CoreError
from ssd2.wire.codec import OpenRequest
from user_agent.errors import CoreLost, CoreUnavailable, DemoCoreEnded
from user_agent.line.client import CoreClient
from user_agent.line.connection import CoreConnection, is_local
from user_agent.line.core_key import credentials_for
from user_agent.line.credentials import CoreCredentials
from user_agent.line.demo_core import DemoCore, demo_core, ended
from user_agent.line.patience import OnWait
from user_agent.line.resuming_stream import ResumingStream
from user_agent.line.settings import LineSettings
from user_agent.store.ledger import Ledger

RESTART_PATIENCE_S = 30.0
"""How long an answer waits for the demo's core to be there again; a start takes seconds."""

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


class _DemoClient(CoreClient):
    """The line to the demo's core, which waits for another start of it, and says what has become of it."""

    def __init__(self, demo: DemoCore, settings: LineSettings, ledger: Ledger) -> None:
        super().__init__(demo.address, ledger, answer_timeout_s=settings.timeout, patience_s=RESTART_PATIENCE_S)
        self._demo = demo

    async def open(self, request: OpenRequest, on_wait: OnWait | None = None) -> ResumingStream:
        """See `CoreClient.open`."""

        def tell(error: CoreError, seconds: float) -> None:
            if on_wait:
                on_wait(self._demo.failure or error, seconds)

        return await super().open(request, tell)

    async def _anywhere(
        self, ask: Callable[[CoreConnection], Awaitable[_T]], broken: Container[CoreConnection] = ()
    ) -> _T:
        """See `CoreClient`; what that says of addresses and options helps nobody here."""
        failure = self._demo.failure
        if failure and failure.retry_after_s is None:  # another program may have taken the port
            raise failure
        try:
            return await super()._anywhere(ask, broken)
        except CoreUnavailable as error:  # perhaps a moment before its end is known
            raise self._demo.failure or ended() from error
        except CoreLost as error:
            raise self._demo.failure or error from error


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
        self._demo: DemoCore | None = None

    @property
    def is_demo(self) -> bool:
        """True if the core is the demo's, on this machine."""
        return self._demo is not None

    @property
    def failure(self) -> DemoCoreEnded | None:
        """Why the demo's core cannot be asked just now; None where it runs, or it is another one."""
        return self._demo.failure if self._demo else None

    async def connect(self, settings: LineSettings | None) -> None:
        """Take up a core; the line before it is dropped, with answers that are in progress.

        Args:
            settings: of the line; without an address the demo's core is started. None asks no core.

        Raises:
            SlingshotError: if the address is none, or the demo's core does not start; then the line stays as it was.
        """
        async with AsyncExitStack() as opening:
            demo, client = None, None
            if settings:
                demo = await opening.enter_async_context(demo_core()) if settings.core is None else None
                line = _DemoClient(demo, settings, self._ledger) if demo else self._configured(settings)
                client = await opening.enter_async_context(line)
            before, self._stack = self._stack, opening.pop_all()
        self.client, self._demo = client, demo
        self.address = demo.address if demo else settings.core if settings else None
        await before.aclose()

    def _configured(self, settings: LineSettings) -> CoreClient:
        credentials = credentials_of(settings)
        return CoreClient(settings.core or "", self._ledger, credentials=credentials, answer_timeout_s=settings.timeout)

    async def close(self) -> None:
        """Hang up; a demo core ends."""
        await self._stack.aclose()
