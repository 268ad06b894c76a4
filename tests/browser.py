"""A browser without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

INSTALL = "no Chromium here: `apt-get install chromium`, or `playwright install chromium`"


@contextmanager
def launched_browser() -> Iterator[Browser]:
    """Launch Chromium; a test without one is skipped."""
    with sync_playwright() as playwright:
        # Without a GPU here, one would be computed on the processor.
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=_chromium(playwright), args=options)
        yield browser
        browser.close()


def _chromium(playwright: Playwright) -> str:
    own = playwright.chromium.executable_path
    found = shutil.which("chromium") or shutil.which("chromium-browser") or (Path(own).is_file() and own)
    if not found:
        pytest.skip(INSTALL)
    return found
