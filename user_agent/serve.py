"""`user-agent serve`: the parts of a running agent, put together, and taken apart again in reverse."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from ssd2.demo.paths import NOTES
from ssd2.errors import InvalidParameter
from user_agent.answering.service import Answering
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.api.app import create_app
from user_agent.api.reading import LinkChecks
from user_agent.api.security import access_keys
from user_agent.api.state import AppState
from user_agent.config import AgentConfig, load_config
from user_agent.line.line import CoreLine
from user_agent.line.own_core import exit_on_sigterm
from user_agent.store.data_folder import held_data_folder
from user_agent.stores import open_stores, unlink_samples
from user_agent.tuning.reading import check_reading

BACKLOG = 64
"""Connections that wait to be taken; one more may be reset on a busy machine.

Where there are no file descriptors left, asyncio tries to take as many, and logs as many failures, each
second; uvicorn's own number is 2,048.
"""

GRACE_S = 3
"""How long answers in progress may go on once the agent is told to stop."""


async def serve(announce: Callable[[str, AppState], None], **options: Any) -> None:
    """Run an agent until it is told to stop.

    Args:
        announce: told the address once it listens.
        **options: of `AgentConfig`, those that are not None.

    Raises:
        SlingshotError: if it cannot be started as asked.
    """
    config = load_config(**options)
    exit_on_sigterm()  # uvicorn sends itself the signal once more when it has stopped serving
    with listening_socket(config) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        async with running_parts(config, url, options) as state:
            server = uvicorn.Config(
                create_app(state),
                log_level="warning",
                access_log=False,  # paths and times of questions are nobody's business
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=GRACE_S,
                lifespan="off",
                backlog=BACKLOG,
            )
            announce(url, state)
            await uvicorn.Server(server).serve(sockets=[listening])


@asynccontextmanager
async def running_parts(config: AgentConfig, url: str, options: dict[str, Any]) -> AsyncIterator[AppState]:
    """Open the parts that the routes work with; they end on leaving.

    Raises:
        SlingshotError: if a part cannot be started; StoreInUse if another agent has the data folder.
    """
    config.check_pair()
    with held_data_folder(config.data_dir, url), open_stores(config) as stores:
        line = CoreLine(stores.ledger)
        try:
            loading = asyncio.create_task(asyncio.to_thread(UserModel.configured, config, with_weights=True))
            library = stores.documents
            # The first two take seconds; the third is told once the agent listens.
            await asyncio.gather(line.connect(config.line, config.pair), loading, asyncio.to_thread(library.exposure))
            if line.is_demo and not library.links() and not library.documents():
                library.link(NOTES)
            if config.pair:
                unlink_samples(library)
            library.watch()
            answering = Answering(
                *(config, loading.result(), line.client, library.search, stores.crossed, Traces()),
                records=stores.answers,
            )
            library.on_removal(answering.forget_prompts)
            checks = LinkChecks(check_reading if config.check_reading else None)
            keys = access_keys(config)
            _ = keys.client, keys.page  # made now, while a failure still ends the start
            state = AppState(config, options, keys, answering, stores, line, checks)
            try:
                yield state
            finally:
                await state.fetching.close()
                await checks.close()
        finally:
            await line.close()


def listening_socket(config: AgentConfig) -> socket.socket:
    """A socket at the address, before anything slow begins.

    Raises:
        InvalidParameter: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where TCP is named; with it every small answer waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen()  # who comes early waits
    except OSError as error:
        listening.close()
        raise InvalidParameter(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another port, 0 for any free one",
            parameter="port",
        ) from error
    return listening
