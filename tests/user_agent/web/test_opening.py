"""Opening the page, and looking at all of it, sends nothing to the core."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.user_agent.api.conftest import running_agent
from tests.user_agent.web.conftest import opened

pytestmark = pytest.mark.slow


class Listener:
    """A port that stands for a core: it takes connections and counts them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._socket.accept()
            except OSError:
                return
            self.connections += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def test_opening_the_page_and_all_of_its_views_sends_nothing(
    browser: Browser, listener: Listener, tmp_path: Path
) -> None:
    with running_agent(tmp_path, "--core", listener.address) as agent, opened(agent, browser) as page:
        for link, shown in (
            ("Documents", "Folder on this machine"),
            ("What left this device", "Every message is recorded"),
            ("Settings", "Current core"),
            ("New chat", "Ask about your documents"),
        ):
            page.get_by_role("link", name=link).click()
            expect(page.locator("main").get_by_text(shown).first).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Ask about your documents")).to_be_visible()
        with agent.client() as http:
            assert http.get("/v1/ledger/totals").json()["up"]["messages"] == 0
            assert listener.connections == 0
            http.get("/v1/status?ask_core=true").raise_for_status()  # the same where it is meant to ask
        assert listener.connections > 0
