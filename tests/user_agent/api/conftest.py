"""A running agent with random models, as a process of its own, and what asks it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import ENVIRONMENT, CoreProcess

KEY = "sk-test"


@dataclass
class AgentProcess:
    """A running agent.

    Attributes:
        process: its process.
        url: where it listens.
        home: folder that its configuration and data lie in.
    """

    process: subprocess.Popen[str]
    url: str
    home: Path

    def client(self, key: str | None = KEY, **options: Any) -> httpx.Client:
        """Asks it."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)


def agent_environment(home: Path, **settings: object) -> dict[str, str]:
    """Variables of a process that finds nothing of this machine's user."""
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}
    named = {f"SLINGSHOT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**{k: v for k, v in ENVIRONMENT.items() if not k.startswith("SLINGSHOT_")}, **own, **named}


@contextmanager
def running_agent(home: Path, *options: str, **settings: object) -> Iterator[AgentProcess]:
    """Start an agent on a free port and end it on leaving; settings as environment variables."""
    command = [sys.executable, "-m", "user_agent", "serve", "--port", "0", *options]
    environment = agent_environment(home, **{"api_key": KEY, "passphrase": "for tests", **settings})
    with open(home / "agent.log", "w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        line = process.stdout.readline()
        url = re.search(r"listening on (http://\S+)", line)
        assert url, f"the agent did not start: {(home / 'agent.log').read_text()}"
        yield AgentProcess(process, url[1], home)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def agent(core: CoreProcess, user_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    home = tmp_path_factory.mktemp("home")
    with running_agent(home, "--core", core.address, user_model=user_folder, steps=3, max_tokens=16) as running:
        yield running


@pytest.fixture
def http(agent: AgentProcess) -> Iterator[httpx.Client]:
    with agent.client() as client:
        yield client


def asked(text: str = "Where is it?", **changes: object) -> dict[str, object]:
    """A body for /v1/chat/completions."""
    return {"model": "slingshot", "messages": [{"role": "user", "content": text}], **changes}


def eventually(happens: Callable[[], Any], within_s: float = 20.0) -> Any:
    """What a condition gives, as soon as it holds."""
    deadline = time.monotonic() + within_s
    while not (found := happens()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found
