"""A whole session with the agent's app, as a program that can be watched from outside: prints where the agent was.

`python -m tests.end_to_end.app_session CORE USER_MODEL HOME NOTES`
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.user_agent.api.conftest import asked, running_agent


def main(core: str, user_model: str, home: str, notes: str) -> None:
    """Documents of several kinds, the page's files, an answer whole and streamed, the ledger, figures, the end."""
    settings = {"user_model": user_model, "steps": 3, "max_tokens": 8}
    with running_agent(Path(home), "--core", core, **settings) as agent, agent.client() as http:
        http.post("/v1/documents/links", json={"path": notes}).raise_for_status()
        deadline = time.monotonic() + 60
        while len(http.get("/v1/documents").json()["data"]) < len(list(Path(notes).iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for route in ("/", "/openapi.json", "/ready", "/v1/status", "/v1/settings", "/v1/ledger", "/metrics"):
            http.get(route).raise_for_status()
        for is_stream in (False, True):
            answer = http.post("/v1/chat/completions", json=asked("What is my shed code?", stream=is_stream))
            assert "4711" in answer.text, "it was read and is cited"
        print(agent.url.removeprefix("http://"))


if __name__ == "__main__":
    main(*sys.argv[1:])
