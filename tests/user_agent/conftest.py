"""A core for agents to ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CoreProcess, running_core


@pytest.fixture(scope="session")
def core(core_folder: Path) -> Iterator[CoreProcess]:
    """Shared by all; a test that ends one, or needs another, starts its own."""
    with running_core(core_folder, "--max-sessions", "4") as running:
        yield running
