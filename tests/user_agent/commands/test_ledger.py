"""`user-agent ledger` as a person and a script use it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssd2.errors import InvalidParameter, NotFound
from ssd2.wire import collaboration_pb2 as pb
from user_agent.commands.app import app
from user_agent.commands.ledger import open_ledger
from user_agent.config import load_config
from user_agent.errors import StoreKeyWrong
from user_agent.store.ledger import tracing

CORE = "core.example.org:50051"
PROJECTION = pb.CollaborateRequest(projection=pb.Projection(block=1, token_ids=[5, 6])).SerializeToString()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledger of an agent with a passphrase: 30 messages up, and one down."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "a passphrase")
    monkeypatch.setenv("COLUMNS", "160")
    with open_ledger(load_config()) as ledger:
        for number in range(30):
            with tracing(f"answer-{number // 10}"):
                ledger.record("up", CORE, "Collaborate", PROJECTION)
        ledger.record("down", CORE, "Collaborate", b"logits")
    return tmp_path / "data/slingshot/ledger.sqlite"


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, ["ledger", *arguments], catch_exceptions=False).stdout


def test_the_help_says_that_entries_cut_off_at_the_end_are_not_found_without_a_hash(file: Path) -> None:
    for command in (("--help",), ("verify", "--help")):
        said = " ".join(re.sub("[│╭╮╰╯─]", " ", run(*command)).split())
        assert re.search(r"removed at (the|its) end", said)
        assert "elsewhere" in said


def test_the_last_entries_are_listed_in_order(file: Path) -> None:
    lines = [line.split() for line in run("show", "--limit", "3").splitlines() if CORE in line]
    assert [line[0] for line in lines] == ["29", "30", "31"]
    assert lines[0][2:] == ["up", "projection", str(len(PROJECTION) + 5), CORE, "answer-2"]
    assert lines[2][2:] == ["down", "Collaborate", "11", CORE]


def test_json_has_the_entries_of_one_answer_and_the_totals(file: Path) -> None:
    shown = json.loads(run("show", "--json", "--trace", "answer-1", "--limit", "4"))
    assert [entry["seq"] for entry in shown["entries"]] == [17, 18, 19, 20]
    assert (shown["totals"]["up"]["messages"], shown["totals"]["down"]["wire_bytes"]) == (30, 11)


def test_one_entry_is_shown_with_what_its_message_says(file: Path) -> None:
    assert "token_ids: [5, 6]" in run("show", "7")
    assert "only its size and hash" in run("show", "31")
    assert json.loads(run("show", "7", "--json"))["message"]["token_ids"] == [5, 6]
    with pytest.raises(NotFound):
        run("show", "99")


def test_verify_says_that_it_is_whole_or_exits_with_1_and_names_the_entry(file: Path) -> None:
    assert "31 entries, hash chain consistent" in run("verify")
    with open_ledger(load_config()) as ledger:
        ledger._connection.execute("DROP TRIGGER entry_is_final")
        ledger._connection.execute("UPDATE entry SET destination = 'elsewhere:1' WHERE seq = 12")
    result = CliRunner().invoke(app, ["ledger", "verify"])
    assert result.exit_code == 1
    assert "broken at entry 12" in result.stderr


def test_the_export_has_all_entries_and_is_the_owners_alone(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run("export", str(out))
    assert [json.loads(line)["seq"] for line in out.read_text().splitlines()] == list(range(1, 32))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with pytest.raises(InvalidParameter, match="cannot write"):
        run("export", str(tmp_path))


def test_it_is_encrypted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CORE.encode() not in b"".join(path.read_bytes() for path in file.parent.iterdir())
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "another one")
    with pytest.raises(StoreKeyWrong):
        run("verify")


def test_it_can_be_read_while_an_agent_writes(file: Path) -> None:
    with open_ledger(load_config()) as agent:
        agent._connection.execute("BEGIN IMMEDIATE")
        assert "31 entries, hash chain consistent" in run("verify")
        agent._connection.execute("COMMIT")
        agent.record("up", CORE, "Collaborate", PROJECTION)
        assert "32 entries, hash chain consistent" in run("verify")


def test_the_data_folder_can_be_given(file: Path, tmp_path: Path) -> None:
    assert "0 entries, hash chain consistent" in run("verify", "--data-dir", str(tmp_path / "other"))
    assert "31 entries, hash chain consistent" in run("verify", "--data-dir", str(file.parent))
