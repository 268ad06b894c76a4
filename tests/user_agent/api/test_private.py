"""The private side of a request: texts that the user model alone reads, and which documents it looks in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.user_agent.api.conftest import AgentProcess, asked, eventually
from user_agent.answering.request import MAX_PRIVATE_CONTEXT
from user_agent.api.openai_types import SlingshotOptions

CHAT = "/v1/chat/completions"


def test_messages_are_read_with_who_said_them() -> None:
    options = SlingshotOptions(
        private=[
            "A passage.",
            {"role": "system", "content": "Notes."},
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": "Three."},
            {"role": "tool", "content": "4"},
        ]
    )
    assert options.private_text == "A passage.\n\nNotes.\n\nUser: One.\nTwo.\n\nAssistant: Three.\n\n4"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"private": "a", "private_context": "b"}, "slingshot.private"),
        ({"private": ["a" * MAX_PRIVATE_CONTEXT, "b"]}, "slingshot.private"),
        ({"private": "a" * (MAX_PRIVATE_CONTEXT + 1)}, "slingshot.private"),
        ({"private": [{"role": "narrator", "content": "a"}]}, "slingshot.private"),
        ({"private": {"text": "a"}}, "slingshot.private"),
        ({"documents": True, "collections": [1]}, "slingshot.collections"),
        ({"collections": ["notes"]}, "slingshot.collections"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(http: httpx.Client, options: dict, field: str) -> None:
    response = http.post(CHAT, json=asked(slingshot=options))
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(field)


def test_a_collection_is_all_documents_of_a_link(agent: AgentProcess, tmp_path: Path) -> None:
    links = {}
    with agent.client() as http:
        for name in ("house", "garden"):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.md").write_text(f"The key is in the {name}.")
            links[name] = http.post("/v1/documents/links", json={"path": str(tmp_path / name)}).json()["id"]
        eventually(lambda: len(http.get("/v1/documents?state=indexed").json()["data"]) == 2)

        def cited(**options: object) -> set[str]:
            answer = http.post(CHAT, json=asked("Where is the key?", slingshot=options)).json()
            return {Path(citation["source"]).name for citation in answer["slingshot"]["citations"]}

        assert cited() == {"house.md", "garden.md"}
        assert cited(collections=[links["garden"]]) == {"garden.md"}
        assert cited(collections=list(links.values())) == {"house.md", "garden.md"}
        assert cited(collections=[]) == cited(collections=[10**6]) == set()
        found = http.post("/v1/documents/search", json={"query": "key", "collections": [links["house"]]}).json()["data"]
        assert [Path(one["source"]).name for one in found] == ["house.md"]
        for link in links.values():
            http.delete(f"/v1/documents/links/{link}")
