"""`user-agent chats` as a person and a script use it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ssd2.errors import InvalidParameter, NotFound
from user_agent.commands.app import app
from user_agent.commands.chat import _resumed
from user_agent.config import load_config
from user_agent.store.answers import CrossedWords
from user_agent.stores import open_stores


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of a chat; another one is beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "a passphrase")
    with open_stores(load_config()) as stores:
        stores.history.create("Other")
        made = stores.history.create("The shed").id
        stores.history.append(made, "user", "What is my shed code?")
        stores.history.append(made, "assistant", "It is 12.", "t0", {})
        stores.history.append(made, "assistant", "It is 4711.", "t1", {})
        stores.history.append(made, "assistant", "Unknown.", "t2", {"is_core_alone": True})
        stores.answers.end("t1", "What is my shed code?", [CrossedWords("4711", "/n/home.md", "home.md:1")], "whole")
    return made


def run(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(app, ["chats", *arguments], catch_exceptions=False, **options)  # type: ignore[arg-type]


def test_chats_are_listed_and_found_by_their_words(chat: str) -> None:
    assert [line.split("  ")[2] for line in run("list").stdout.splitlines()] == ["The shed", "Other"]
    assert [one["id"] for one in json.loads(run("list", "--json", "--limit", "1").stdout)["chats"]] == [chat]
    assert run("search", "4711").stdout.splitlines() == [f"{chat[:8]}  assistant  It is 4711."]
    assert json.loads(run("search", "code", "--json").stdout)["found"][0]["conversation"] == chat
    nothing = run("search", "nowhere")
    assert (nothing.exit_code, nothing.stdout) == (1, "")


def test_a_chat_is_shown_and_exported_to_a_file_of_its_owners(chat: str, tmp_path: Path) -> None:
    assert run("show", chat[:6]).stdout.startswith("# The shed\n")
    out = tmp_path / "chat"
    for form, begins in (("markdown", "# The shed"), ("json", "{")):
        run("export", chat, str(out), "--form", form)
        assert out.read_text().startswith(begins)
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert json.loads(run("show", chat, "--json").stdout)["messages"][2]["text"] == "It is 4711."


def test_a_deleted_chat_is_gone_with_what_says_what_crossed(chat: str) -> None:
    assert run("delete", chat[:6], input="n\n").exit_code == 1
    assert run("delete", chat[:6], input="y\n").stdout.endswith(f"deleted {chat}\n")
    with open_stores(load_config()) as stores:
        assert [one.title for one in stores.history.conversations()] == ["Other"]
        assert stores.answers.of(["t1"]) == {}


def test_an_id_that_names_no_chat_or_several_is_refused(chat: str) -> None:
    with pytest.raises(NotFound, match="chats list"):
        run("show", "nowhere")
    with pytest.raises(InvalidParameter, match="2 chats"):
        run("show", "")


def test_a_resumed_chat_goes_on_with_the_last_answer_of_each_question(
    chat: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_stores(load_config()) as stores:
        said, kept = _resumed(stores.history, chat[:8])
    assert (kept, [(one.role, one.content) for one in said]) == (
        chat,
        [("user", "What is my shed code?"), ("assistant", "It is 4711.")],
    )
    assert "> What is my shed code?" in capsys.readouterr().out
