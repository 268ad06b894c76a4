"""What the routes work with, handed to the app when it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fastapi import Request

from user_agent.answering import Answering
from user_agent.config import AgentConfig


@dataclass
class AppState:
    """The parts of a running agent.

    Attributes:
        config: as it was started.
        api_key: that requests have to know.
        answering: answers questions.
        core_address: of the core, or None.
        is_demo: whether that is the demo's, started by the agent itself.
        started: when, in seconds since 1970.
    """

    config: AgentConfig
    api_key: str
    answering: Answering
    core_address: str | None
    is_demo: bool
    started: int = field(default_factory=lambda: int(time.time()))


def state_of(request: Request) -> AppState:
    """The parts of the running agent."""
    state: AppState = request.app.state.agent
    return state


def answering_of(request: Request) -> Answering:
    """What answers questions."""
    return state_of(request).answering
