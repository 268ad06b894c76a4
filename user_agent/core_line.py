"""The agent's line to its core: the one that it is configured with, or the demo's, which it starts itself."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from user_agent.config import AgentConfig
from user_agent.core_client import CoreClient
from user_agent.core_connection import is_local
from user_agent.core_key import credentials_for
from user_agent.credentials import CoreCredentials
from user_agent.demo_core import demo_core
from user_agent.ledger import Ledger


def needed_line(config: AgentConfig) -> tuple[str | Path | bool | None, ...]:
    """What tells one line from another: address and certificates; empty where no core is asked, with λ 1."""
    if config.lambda_user == 1:
        return ()
    return config.core, config.ca, config.client_certificate, config.client_key, config.insecure


def credentials_of(config: AgentConfig) -> CoreCredentials:
    """What the line to the core of a configuration is made with.

    Raises:
        SlingshotError: if it cannot be had.
    """
    return credentials_for(
        config.core,
        ca=config.ca,
        client_certificate=config.client_certificate,
        client_key=config.client_key,
        insecure=config.insecure,
    )


def how_protected(config: AgentConfig, address: str) -> str:
    """Say who can read along on the line to a core."""
    if config.ca:
        return "encrypted"
    if is_local(address):
        return "on this machine"
    return "NOT encrypted: whoever is on the way can read questions and answers (insecure is set)"


class CoreLine:
    """One line at a time.

    Attributes:
        client: None where λ is 1.
        address: HOST:PORT, or None.
        is_demo: whether the core is the demo's, on this machine.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stack = AsyncExitStack()
        self.client: CoreClient | None = None
        self.address: str | None = None
        self.is_demo = False

    async def connect(self, config: AgentConfig) -> None:
        """Take up the core of a configuration; the line before it is dropped, with answers that are in progress.

        Raises:
            SlingshotError: if the address is none, or the demo's core does not start; then the line stays as it was.
        """
        async with AsyncExitStack() as opening:
            needs_core = bool(needed_line(config))
            is_demo = needs_core and config.core is None
            address = await opening.enter_async_context(demo_core()) if is_demo else config.core
            client = None
            if needs_core and address:
                credentials = None if is_demo else credentials_of(config)
                line = CoreClient(
                    address, credentials=credentials, answer_timeout_s=config.timeout, ledger=self._ledger
                )
                client = await opening.enter_async_context(line)
            before, self._stack = self._stack, opening.pop_all()
        self.client, self.address, self.is_demo = client, address, is_demo
        await before.aclose()

    async def close(self) -> None:
        """Hang up; a demo core ends."""
        await self._stack.aclose()
