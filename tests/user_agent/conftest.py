"""A core for agents to ask, and a machine that lets nobody leave its network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CoreProcess, running_core
from user_agent.documents import extraction


@pytest.fixture(scope="session")
def core(core_folder: Path) -> Iterator[CoreProcess]:
    """Shared by all; a test that ends one, or needs another, starts its own."""
    with running_core(core_folder, "--max-sessions", "4") as running:
        yield running


@pytest.fixture
def refused_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses the namespace that a process which reads files asks for: there is no such kind."""
    code = (
        "from user_agent.documents import confinement, extraction_worker\n"
        "confinement._CLONE_NEWNET = 1\n"
        "extraction_worker.main()"
    )
    monkeypatch.setattr(extraction, "_WORKER", [sys.executable, "-P", "-c", code])
