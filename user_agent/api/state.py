"""Parts that the routes work with, passed to the app when it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from user_agent.answering.service import Answering
from user_agent.api.fetching import Fetching
from user_agent.api.reading import LinkChecks
from user_agent.config import AgentConfig
from user_agent.line.line import CoreLine
from user_agent.store.access_keys import AccessKeys
from user_agent.stores import Stores


@dataclass
class AppState:
    """The parts of a running agent.

    Attributes:
        config: as it is now.
        options: that it was started with.
        keys: that requests have to have.
        answering: answers questions.
        stores: what is kept.
        line: to the core.
        checks: whether the models can read what is linked.
        fetching: downloads that the page asked for.
        started: when, in seconds since 1970.
    """

    config: AgentConfig
    options: dict[str, Any]
    keys: AccessKeys
    answering: Answering
    stores: Stores
    line: CoreLine
    checks: LinkChecks = field(default_factory=LinkChecks)
    fetching: Fetching = field(default_factory=Fetching)
    started: int = field(default_factory=lambda: int(time.time()))

    def check_links(self, *links: int) -> None:
        """Check whether the models can read some links."""
        config, user_model = self.config, self.answering.user_model
        self.checks.begin(links, self.stores.documents, user_model, config.models_title, config.system_prompt)


def state_of(request: Request) -> AppState:
    """The parts of the running agent."""
    state: AppState = request.app.state.agent
    return state


def answering_of(request: Request) -> Answering:
    """Return the service that answers questions."""
    return state_of(request).answering
