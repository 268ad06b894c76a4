"""The agent's own routes: documents, the ledger, conversations, settings, status, metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.conftest import CoreProcess
from tests.end_to_end.processes import children, peak_mb
from tests.user_agent.api.conftest import AgentProcess, agent_environment, asked, eventually, running_agent
from tests.user_agent.documents import made
from user_agent.store.ledger import Crossing

SENTINEL = "Zanzibar-4711"
BUSY_S = 5
"""What a busy machine may take on top."""


@pytest.fixture
def emptied(agent: AgentProcess) -> Iterator[AgentProcess]:
    """The agent of all tests, which keeps no document of one for the next."""
    yield agent
    with agent.client() as http:
        for route in ("/v1/documents/links", "/v1/documents"):
            for kept in http.get(route).json()["data"]:
                http.delete(f"{route}/{kept['id']}").raise_for_status()
        assert http.get("/v1/documents").json()["data"] == []


@pytest.fixture
def own(core: CoreProcess, user_folder: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of a test's own."""
    settings = {"user_model": user_folder, "steps": 3, "max_tokens": 8}
    with running_agent(tmp_path, "--core", core.address, **settings) as running:
        yield running


def indexed(http: httpx.Client, count: int) -> list[dict]:
    def found() -> list[dict] | None:
        documents = http.get("/v1/documents").json()["data"]
        return documents if len(documents) == count else None

    return eventually(found)


def test_a_linked_folder_is_kept_in_sync_and_no_file_is_left_out_in_silence(
    emptied: AgentProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "keys.md").write_text("The spare key is in the blue drawer.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    with emptied.client() as http:
        link = http.post("/v1/documents/links", json={"path": str(folder)}).json()
        states = {document["name"]: document["state"] for document in indexed(http, 3)}
        assert states == {"keys.md": "indexed", "broken.pdf": "failed", "photo.jpg": "skipped"}
        (failed,) = http.get("/v1/documents?state=failed").json()["data"]
        assert failed["reason"]
        (found,) = http.get("/v1/documents/links").json()["data"]
        assert {**found, "check": None} == {**link, "documents": 1, "failed": 1, "check": None}
        (folder / "more.txt").write_text("The shed code is 4711.")
        indexed(http, 4)
        (passage,) = http.post("/v1/documents/search", json={"query": "shed code"}).json()["data"]
        assert (passage["text"], passage["line"], passage["page"]) == ("The shed code is 4711.", 1, None)
        progress = http.get("/v1/documents/progress").json()
        assert progress["done"] == progress["total"]
        assert http.delete(f"/v1/documents/links/{link['id']}").json() == {"id": link["id"], "deleted": True}
        assert http.get("/v1/documents").json() == {"data": [], "has_more": False}
        assert http.delete(f"/v1/documents/links/{link['id']}").status_code in (400, 404)
        assert http.post("/v1/documents/links", json={"path": "/nowhere/at/all"}).status_code == 400


def test_an_upload_is_read_under_a_harmless_name(emptied: AgentProcess) -> None:
    with emptied.client() as http:
        note = {"file": ("../../../etc/passwd.md", b"My bike lock is 2291.")}
        uploaded = http.post("/v1/documents", files=note).json()
        assert (uploaded["name"], uploaded["state"], uploaded["link"]) == ("passwd.md", "indexed", None)
        assert http.post("/v1/documents/search", json={"query": "bike lock"}).json()["data"][0]["source"] == "passwd.md"
        bad = http.post("/v1/documents", files={"file": ("notes.md", bytes(range(256)) * 20)}).json()
        assert bad["state"] == "failed"
        assert bad["reason"]
        assert http.post("/v1/documents", files={"file": ("run.exe", b"MZ")}).status_code == 400
        assert http.post("/v1/documents", files={"file": ("big.txt", b"a" * (21 << 20))}).status_code == 400
        assert http.post("/v1/documents", files={"file": ("huge.txt", b"a" * (33 << 20))}).status_code == 413
        http.delete(f"/v1/documents/{uploaded['id']}")
        assert http.post("/v1/documents/search", json={"query": "bike lock"}).json()["data"] == []


def test_hostile_uploads_end_with_a_reason_in_bounds(emptied: AgentProcess) -> None:
    """Bounds of time and of memory, of the agent and of the process that reads for it."""
    uploads = {
        "cut.pdf": made.pdf("Hello.")[:-60],
        "bomb.docx": made.zip_bomb(),
        "lying.docx": made.lying_zip_bomb(),
        "binary.md": os.urandom(100_000),
        "../../deep/..\\nested.json": b"[1," * 5_000_000,
    }
    before = peak_mb(emptied.process.pid)
    with emptied.client() as http:
        for name, data in uploads.items():
            sent = time.monotonic()
            document = http.post("/v1/documents", files={"file": (name, data)}).json()
            assert (document["state"], bool(document["reason"])) == ("failed", True), name
            assert "/" not in document["name"]
            assert time.monotonic() - sent < 10 + BUSY_S, name
        sent = time.monotonic()
        assert http.post("/v1/documents", files={"file": ("big.txt", b"a" * 200_000_000)}).status_code == 413
        assert time.monotonic() - sent < 10 + BUSY_S
        (reader,) = children(emptied.process.pid)
        assert peak_mb(reader) < 500
        assert peak_mb(emptied.process.pid) - before < 500
        assert http.post("/v1/documents", files={"file": ("good.md", b"The key is here.")}).json()["state"] == "indexed"
        assert len(http.get("/v1/documents?state=failed").json()["data"]) == len(uploads)


def test_an_answer_cites_what_the_user_model_read_and_looks_only_where_it_may(emptied: AgentProcess) -> None:
    with emptied.client() as http:
        first, second = (
            http.post("/v1/documents", files={"file": (f"{name}.md", f"The key is in the {name}.".encode())}).json()
            for name in ("drawer", "shed")
        )

        def cited(**options: object) -> set[str]:
            answer = http.post("/v1/chat/completions", json=asked("Where is the key?", slingshot=options)).json()
            return {citation["source"] for citation in answer["slingshot"]["citations"]}

        assert cited() == {"drawer.md", "shed.md"}
        assert cited(documents=[second["id"]]) == {"shed.md"}
        assert cited(documents=False) == cited(lambda_user=0) == set()
        assert cited(documents=[first["id"], 99]) == {"drawer.md"}


def test_every_message_of_an_answer_is_in_the_ledger_and_nothing_of_the_documents_is(emptied: AgentProcess) -> None:
    with emptied.client() as http:
        http.post("/v1/documents", files={"file": ("secret.md", f"The key is at {SENTINEL}.".encode())})
        answer = http.post("/v1/chat/completions", json=asked("Where is the key?")).json()["slingshot"]
        assert SENTINEL in answer["citations"][0]["text"], "the user model has read it"
        trace = answer["trace"]
        up = http.get("/v1/ledger", params={"trace": trace, "direction": "up"}).json()["data"]
        kinds = [http.get(f"/v1/ledger/{entry['seq']}").json()["message"]["kind"] for entry in up]
        assert kinds[:2] == ["model_card", "open"]
        assert kinds[-1] == "close"
        projections = [entry for entry, kind in zip(up, kinds, strict=True) if kind == "projection"]
        assert len(projections) == answer["figures"]["round_trips"] - 1, "the last commit is kept here"
        opened = http.get(f"/v1/ledger/{up[1]['seq']}").json()
        assert opened == {**up[1], "message": opened["message"], "texts": opened["texts"]}
        assert set(up[1]) == {one.name for one in fields(Crossing)}
        assert "".join(opened["texts"]).endswith("Where is the key?<answer>")
        lines = [json.loads(line) for line in http.get("/v1/ledger/export").text.splitlines()]
        sent = b"".join(bytes.fromhex(line["payload"]) for line in lines if line["payload"])
        assert SENTINEL.encode() not in sent
        assert b"secret.md" not in sent
        events = http.get(f"/v1/traces/{trace}/events").text.split("\n\n")
        departed = [json.loads(e.split("data: ")[1].split("\n")[0]) for e in events if e.startswith("event: egress")]
        assert departed == [{"seq": entry["seq"], "wire_bytes": entry["wire_bytes"]} for entry in up]
        totals = http.get("/v1/ledger/totals", params={"trace": trace}).json()
        assert totals["up"]["messages"] == len(up)
        assert totals["up"]["payload_bytes"] == sum(entry["payload_bytes"] for entry in up)
        assert http.get("/v1/ledger/verify").json() == {
            "entries": len(lines),
            "chain": lines[-1]["chain"],
            "broken_seq": None,
            "reason": "",
        }
        latest = http.get("/v1/ledger", params={"before": 2**62, "limit": 2}).json()
        assert [entry["seq"] for entry in latest["data"]] == [len(lines), len(lines) - 1]
        assert latest["has_more"]
        assert http.get("/v1/ledger/99999").status_code == 404


def test_conversations_outlive_the_agent_and_are_not_readable_on_the_disk(
    core: CoreProcess, user_folder: Path, tmp_path: Path
) -> None:
    with running_agent(tmp_path, "--core", core.address, user_model=user_folder) as agent, agent.client() as http:
        kept = http.post("/v1/conversations", json={"title": "Keys"}).json()["id"]
        route = f"/v1/conversations/{kept}"
        http.post(f"{route}/messages", json={"role": "user", "text": f"Where is {SENTINEL}?"})
        http.post(f"{route}/messages", json={"role": "assistant", "text": "There.", "trace": "t", "data": {"a": [1]}})
        http.post("/v1/conversations", json={"title": "Other"})
        assert http.patch(route, json={"title": "My keys"}).json()["title"] == "My keys"
    files = [file for file in (tmp_path / "data/slingshot").rglob("*") if file.is_file()]
    assert files
    assert not any(SENTINEL.encode() in file.read_bytes() for file in files)
    with running_agent(tmp_path, "--core", core.address, user_model=user_folder) as agent, agent.client() as http:
        listed = http.get("/v1/conversations").json()["data"]
        assert [one["title"] for one in listed] == ["My keys", "Other"]
        said = http.get(route).json()["messages"]
        assert [(m["role"], m["text"], m["trace"], m["data"]) for m in said] == [
            ("user", f"Where is {SENTINEL}?", "", {}),
            ("assistant", "There.", "t", {"a": [1]}),
        ]
        assert http.delete(route).json() == {"id": kept, "deleted": True}
        for gone in (http.get(route), http.delete(route), http.post(f"{route}/messages", json=said[0])):
            assert gone.status_code == 404


def test_another_passphrase_opens_nothing(core: CoreProcess, user_folder: Path, tmp_path: Path) -> None:
    with running_agent(tmp_path, "--core", core.address, user_model=user_folder):
        pass
    done = _serve(tmp_path, core=core.address, user_model=user_folder, passphrase="another")
    assert done.returncode == 1
    assert "SLINGSHOT_PASSPHRASE" in done.stderr


def test_a_second_agent_on_the_same_store_says_where_the_first_one_is(agent: AgentProcess) -> None:
    done = _serve(agent.home)
    assert done.returncode == 1
    assert f"in use by the agent at {agent.url}" in done.stderr


def _serve(home: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "user_agent", "serve", "--port", "0"]
    environment = agent_environment(home, **settings)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_settings_are_taken_up_at_once_and_kept(agent: AgentProcess) -> None:
    with agent.client() as http:
        before = http.get("/v1/settings").json()
        assert (before["lambda_user"]["value"], before["steps"]["value"]) == (None, 3)
        assert before["steps"]["is_set_outside"]
        assert before["core"]["is_set_outside"]
        assert not before["alpha"]["is_set_outside"]
        changed = http.patch("/v1/settings", json={"lambda_user": 0.5, "alpha": 2}).json()
        assert (changed["lambda_user"]["value"], changed["alpha"]["value"]) == (0.5, 2)
        answer = http.post("/v1/chat/completions", json=asked()).json()["slingshot"]
        assert (answer["lambda_user"], answer["alpha"]) == (0.5, 2)
        assert (agent.home / "config/slingshot/config.toml").read_text() == "lambda_user = 0.5\nalpha = 2\n"
        for wrong in ({"lambda_user": 3}, {"port": 1}, {"nothing": 1}, {"steps": 4}, {"insecure": 1}):
            assert http.patch("/v1/settings", json=wrong).status_code == 400
        assert http.get("/v1/settings").json() == changed, "what is refused changes nothing"
        back = http.patch("/v1/settings", json={"lambda_user": None, "alpha": None}).json()
        assert back == before


def test_the_status_says_what_the_agent_works_with(agent: AgentProcess, core: CoreProcess) -> None:
    with agent.client() as http:
        status = http.get("/v1/status?ask_core=true").json()
    assert status["core"]["address"] == core.address
    assert status["core"]["model"] == "tiny" or status["core"]["parameters"] > 0
    assert (status["core"]["is_demo"], status["core"]["error"], status["key_source"]) == (False, None, "passphrase")
    assert status["is_reader_isolated"] == (status["reader_warning"] is None)
    assert (status["core"]["is_local"], status["core"]["is_encrypted"]) == (True, False)


def test_the_figures_are_prometheus_and_hold_no_text(own: AgentProcess) -> None:
    with own.client() as http:
        http.post("/v1/documents", files={"file": ("a.md", f"It is at {SENTINEL}.".encode())})
        http.post("/v1/chat/completions", json=asked(f"Is it at {SENTINEL}?"))
        text = http.get("/metrics").text
    assert SENTINEL not in text
    figures = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert figures["slingshot_answers_total", "length"] == 1
    assert figures["slingshot_tokens_total",] == 8
    assert figures["slingshot_documents", "indexed"] == 1
    assert figures["slingshot_wire_bytes_total", "up"] > 0
    assert figures["slingshot_answers_open",] == 0
