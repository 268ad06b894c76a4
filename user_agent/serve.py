"""`user-agent serve`: the parts of a running agent, put together, and taken apart again in reverse."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn

from ssd2.errors import InvalidParameter
from user_agent.answering import Answering, line_to_core
from user_agent.api.app import create_app
from user_agent.api.security import api_key
from user_agent.api.state import AppState
from user_agent.config import AgentConfig
from user_agent.demo_core import demo_core
from user_agent.traces import Traces
from user_agent.user_model import UserModel

GRACE_S = 3


async def serve(config: AgentConfig, announce: Callable[[str, AppState], None]) -> None:
    """Run an agent until it is told to stop.

    Args:
        config: of the agent.
        announce: told the address once it listens.

    Raises:
        SlingshotError: if it cannot be started as asked.
    """
    with _listening(config) as listening:
        async with running_parts(config) as state:
            host, port = listening.getsockname()[:2]
            options = uvicorn.Config(
                create_app(state),
                log_level="warning",
                access_log=False,  # paths and times of questions are nobody's business
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=GRACE_S,
                lifespan="off",
            )
            announce(f"http://{f'[{host}]' if ':' in host else host}:{port}", state)
            await uvicorn.Server(options).serve(sockets=[listening])


@asynccontextmanager
async def running_parts(config: AgentConfig) -> AsyncIterator[AppState]:
    """What the routes work with, ended on leaving.

    Raises:
        SlingshotError: if a part cannot be started.
    """
    async with AsyncExitStack() as stack:
        needs_core = config.lambda_user != 1
        is_demo = needs_core and config.core is None
        address = await stack.enter_async_context(demo_core()) if is_demo else config.core
        client = await stack.enter_async_context(line_to_core(config, address if needs_core else None))
        user_model = await asyncio.to_thread(UserModel.load, config.user_model, with_weights=True)
        answering = Answering(config, user_model, client, lambda *_: (), Traces())
        yield AppState(config, api_key(config), answering, address, is_demo)


def _listening(config: AgentConfig) -> socket.socket:
    """A socket at the address, before anything slow begins.

    Raises:
        InvalidParameter: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
    except OSError as error:
        listening.close()
        raise InvalidParameter(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another --port, or 0 for "
            "any free one"
        ) from error
    return listening
