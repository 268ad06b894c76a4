"""axe-core finds nothing serious on the views, wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.user_agent.api.conftest import AgentProcess
from tests.user_agent.web.conftest import opened

pytestmark = pytest.mark.slow

VIEWS = ("#/chat", "", "#/documents", "#/ledger", "#/ledger?messages", "#/settings")
"""Addresses; "" is the chat with an answer."""


@pytest.fixture(scope="module")
def page(agent: AgentProcess, browser: Browser) -> Iterator[Page]:
    """Open at a chat with an answer."""
    with opened(agent, browser) as page:
        page.get_by_label("Question").fill("Where is my piano lesson?")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Regenerate")).to_be_visible(timeout=90_000)
        page.evaluate("window.chat = location.hash; delete crypto.getRandomValues")  # axe draws other numbers
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(page: Page, view: str, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 820})
    page.evaluate("(view) => { location.hash = view || window.chat; }", view)
    expect(page.locator("main > *")).to_be_visible()
    page.wait_for_timeout(300)
    if view == "#/ledger":
        page.locator(".told-answers details").first.evaluate("(details) => { details.open = true; }")
        expect(page.locator(".messages-sent .entry").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in serious] == []
