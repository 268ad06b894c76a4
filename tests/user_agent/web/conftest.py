"""A browser without a window, and pages of it that are open at an agent with the demo's models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import launched_browser
from tests.user_agent.api.conftest import KEY, AgentProcess, running_agent

SAME_DRAWS = "crypto.getRandomValues = (numbers) => numbers.fill(14n);"
"""Put into every page, so that the same question has the same answer."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """With the demo's core, which computes nothing ahead: on a guess it computes as much again."""
    with running_agent(tmp_path_factory.mktemp("home"), speculation=0) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched_browser() as browser:
        yield browser


@pytest.fixture
def page(agent: AgentProcess, browser: Browser) -> Iterator[Page]:
    """Open at the welcome."""
    with opened(agent, browser) as page:
        yield page


@contextmanager
def opened(agent: AgentProcess, browser: Browser) -> Iterator[Page]:
    """A page at the welcome; it fails the test if a script failed, or anything but the agent was asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((agent.url, "blob:")) or failures.append(asked.url))
    page.add_init_script(SAME_DRAWS)
    page.goto(f"{agent.url}/#key={KEY}")
    page.get_by_role("heading", name="Ask about your documents").wait_for()
    yield page
    page.unroute_all(behavior="ignoreErrors")  # what is still being answered for a page that goes fails no other test
    context.close()
    assert not failures
