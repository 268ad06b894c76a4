"""`user-agent docs` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keyring.backends.fail import Keyring as NoKeyring
from typer.testing import CliRunner, Result

from ssd2.demo.paths import EVERYDAY
from ssd2.errors import InvalidParameter, ModelNotFound
from ssd2.evaluation.documents.answering import found_passages
from ssd2.evaluation.documents.questions import chosen_questions
from tests.families import save_llama
from tests.user_agent.answering.test_conversation import TEMPLATE
from user_agent.answering.reading_check import ReadingCheck
from user_agent.answering.user_model import UserModel
from user_agent.commands.app import app
from user_agent.errors import DocumentsUnreadable, StoreInUse, StoreKeyWrong
from user_agent.store.data_folder import held_data_folder
from user_agent.stores import LEDGER

Docs = Callable[..., Result]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docs:
    """Runs a command of the group; an error of ours comes out as it is."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SLINGSHOT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())  # not the keyring of whoever runs the tests

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(app, ["docs", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "home.md").write_text("The spare key is in the blue drawer.\n")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    return folder


def _json(result: Result) -> Any:
    return json.loads(result.stdout)


def test_linking_says_that_the_models_cannot_read_the_folder_and_sends_nothing(docs: Docs, tmp_path: Path) -> None:
    told = docs("link", str(EVERYDAY))
    assert "3 read" in told.stdout
    assert "The demo's models answered 0 of" in told.stderr
    assert "these models cannot read them; choose others (`user-agent models list`" in told.stderr
    found = _json(docs("link", str(EVERYDAY), "--json"))["reading"]
    assert (found["right"], found["can_read"]) == (0, False)
    assert found["questions"] > 0
    assert not (tmp_path / "data" / LEDGER).exists(), "no line was opened, so nothing was entered"


def test_a_folder_is_linked_also_where_its_check_fails_or_is_off(docs: Docs, notes: Path) -> None:
    failed = docs("link", str(notes), "--user-model", "/nowhere")
    assert "1 read" in failed.stdout
    assert "not checked whether the models can read them: " in failed.stderr
    off = docs("link", str(notes), "--no-check-reading")
    assert "can read them" not in off.stderr
    assert _json(docs("link", str(notes), "--no-check-reading", "--json"))["reading"] is None


def test_a_linked_folder_is_read_at_once_and_what_failed_is_told(docs: Docs, notes: Path) -> None:
    result = docs("link", str(notes))
    assert "1 read, 0 unchanged, 0 gone, 1 failed, 1 skipped (1 .png)" in result.stdout
    assert f"{notes / 'broken.pdf'} is truncated" in result.stderr
    assert "blue drawer" in docs("search", "spare key").stdout
    again = docs("sync")
    assert "0 read, 2 unchanged" in again.stdout
    assert "broken.pdf" not in again.stderr, "it was told once"


def test_the_list_shows_every_file_with_its_reason(docs: Docs, notes: Path) -> None:
    docs("link", str(notes))
    shown = docs("list").stdout
    assert all(word in shown for word in ("home.md", "indexed", "broken.pdf", "truncated", "photo.png", ".png"))
    assert "home.md" not in docs("list", "--state", "failed").stdout
    assert docs("list", "--state", "lost").exit_code == 2


def test_every_command_prints_one_json_object_on_request(docs: Docs, notes: Path) -> None:
    linked = _json(docs("link", str(notes), "--json"))
    assert (linked["indexed"], linked["links"][0]["path"]) == (1, str(notes))
    assert linked["failed_documents"][0]["path"] == str(notes / "broken.pdf")
    assert {d["state"] for d in _json(docs("list", "--json"))["documents"]} == {"indexed", "failed", "skipped"}
    status = _json(docs("status", "--json"))
    assert (status["key"], status["indexed"], status["failed"]) == ("file", 1, 1)
    (passage,) = _json(docs("search", "drawer", "--json"))["passages"]
    assert (passage["source"], passage["line"], passage["page"]) == (str(notes / "home.md"), 1, None)
    assert _json(docs("sync", "--json"))["unchanged"] == 2
    assert _json(docs("remove", str(notes), "--json")) == {"removed": str(notes)}


def test_what_is_removed_is_forgotten_and_the_files_stay(docs: Docs, notes: Path) -> None:
    docs("link", str(notes))
    docs("remove", str(notes))
    assert _json(docs("list", "--json")) == {"documents": []}
    assert (notes / "home.md").exists()
    with pytest.raises(InvalidParameter, match="is not a linked folder"):
        docs("remove", str(notes))
    with pytest.raises(InvalidParameter, match="no document 17"):
        docs("remove", "17")


def test_the_passphrase_is_taken_from_the_environment(docs: Docs, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "correct horse")
    docs("link", str(notes))
    assert _json(docs("status", "--json"))["key"] == "passphrase"
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "wrong horse")
    with pytest.raises(StoreKeyWrong):
        docs("status")


def test_while_an_agent_has_the_folder_one_can_look_but_not_write(docs: Docs, notes: Path, tmp_path: Path) -> None:
    docs("link", str(notes))
    with held_data_folder(tmp_path / "data", "http://127.0.0.1:8765"):
        for command in (("link", str(notes)), ("sync",), ("remove", str(notes))):
            with pytest.raises(StoreInUse, match=r"http://127\.0\.0\.1:8765"):
                docs(*command)
        assert "blue drawer" in docs("search", "spare key").stdout
        assert "home.md" in docs("list").stdout


def test_nothing_to_link_is_an_error(docs: Docs, notes: Path) -> None:
    with pytest.raises(DocumentsUnreadable, match="does not exist"):
        docs("link", str(notes / "missing"))


def test_a_document_writes_no_escape_sequence_and_no_markup_to_the_terminal(docs: Docs, notes: Path) -> None:
    (notes / "evil.txt").write_text("The key \x1b[2J is [bold]here[/bold].\n")
    docs("link", str(notes))
    shown = docs("search", "key here").stdout
    assert "\x1b[2J" not in shown
    assert "[bold]here[/bold]" in shown


@pytest.mark.parametrize("command", ["link", "list", "status", "remove", "search", "sync"])
def test_help_shows_examples(docs: Docs, command: str) -> None:
    assert f"user-agent docs {command}" in docs(command, "--help").stdout


def test_a_search_shows_what_an_answer_is_given_and_what_does_not_fit(docs: Docs, notes: Path) -> None:
    visit = f"The spare key is with Ada. {'It is so. ' * 8}"
    (notes / "visit.md").write_text("\n\n".join(f"{visit} Visit {n}." for n in range(8)))
    docs("link", str(notes))
    question = "Where is the spare key?"
    found = _json(docs("search", question, "--limit", "100", "--json"))
    asked = ["ask", question, "--lambda-user", "1", "--steps", "1", "--json", "--no-log"]
    answer = json.loads(CliRunner().invoke(app, asked).stdout)
    assert found["passages"] == answer["citations"]
    assert [{name: one[name] for name in answer["left_out"][0]} for one in found["left_out"]] == answer["left_out"]
    assert [one["is_cut"] for one in found["passages"]].count(True) == 1
    shown = docs("search", question, "--limit", "4")
    assert [line.split("  ")[0] for line in shown.stdout.splitlines()[1:]][:3] == ["whole", "whole", "in part"]
    assert "does not fit" in shown.stdout
    assert "5 more were found; use a larger --limit to see them" in shown.stderr
    assert (_json(docs("search", question, "--limit", "4", "--json"))["more"], found["more"]) == (5, 0)


def test_a_search_leaves_system_prompt_and_private_context_room_as_ask_does(
    docs: Docs, notes: Path, tmp_path: Path
) -> None:
    save_llama(tmp_path / "model", 1782)
    (tmp_path / "model" / "chat_template.jinja").write_text(TEMPLATE)
    visit = f"The spare key is with Ada. {'It is so. ' * 25}"
    (notes / "visit.md").write_text("\n\n".join(f"{visit} Visit {n}." for n in range(24)))
    docs("link", str(notes), "--no-check-reading")
    question, model = "Where is the spare key?", ("--user-model", str(tmp_path / "model"))
    given = []
    for more in ((), ("--system-prompt", "Be brief. " * 60), ("--private-context", "It rains. " * 60)):
        found = _json(docs("search", question, "--limit", "100", "--json", *model, *more))["passages"]
        asked = ("ask", question, "--lambda-user", "1", "--max-tokens", "48", "--json", "--no-log", *model, *more)
        assert found == json.loads(CliRunner().invoke(app, asked).stdout)["citations"]
        given.append(len(found))
    assert min(given[1:]) < given[0]
    assert max(given[1:]) < given[0]


def test_the_check_of_a_link_loads_the_user_model_as_ask_does(
    docs: Docs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []

    def check(model: UserModel, *_: object, system_prompt: str) -> ReadingCheck:
        used.append((model.precision, system_prompt))
        return ReadingCheck(3, 3)

    monkeypatch.setattr("user_agent.tuning.reading.check_reading", check)
    docs("link", str(notes), "--precision", "bfloat16", "--system-prompt", "Be brief.")
    assert used == [("bfloat16", "Be brief.")]


def test_a_search_shows_no_passage_as_given_where_lambda_is_0(
    docs: Docs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs("link", str(notes))
    monkeypatch.setenv("SLINGSHOT_LAMBDA_USER", "0")
    found = _json(docs("search", "spare key", "--json"))
    assert (found["passages"], len(found["left_out"])) == ([], 1)
    shown = docs("search", "spare key")
    assert shown.stdout.splitlines()[1].startswith("no ")
    assert found["why_none"] in shown.stderr


def test_a_long_answer_leaves_documents_their_room_where_both_share_positions(
    user_folder: Path, docs: Docs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model whose prompts begin at position 0, where an answer could take all that a question leaves."""
    folder = notes.parent / "model"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (folder / file).write_bytes((user_folder / file).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "answer_position": None}))
    docs("link", str(notes))
    monkeypatch.setenv("SLINGSHOT_USER_MODEL", str(folder))
    for max_tokens in (8, 4096):
        monkeypatch.setenv("SLINGSHOT_MAX_TOKENS", str(max_tokens))
        assert len(_json(docs("search", "spare key", "--json"))["passages"]) == 1


def test_a_search_without_a_user_model_names_what_is_missing(
    docs: Docs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs("link", str(notes))
    monkeypatch.setenv("SLINGSHOT_USER_MODEL", str(notes / "nowhere"))
    with pytest.raises(ModelNotFound, match="nowhere"):
        docs("search", "spare key")


def test_reading_on_the_network_is_said_on_stderr(docs: Docs, notes: Path, refused_namespaces: None) -> None:
    for command in (("link", str(notes)), ("sync", "--json")):
        done = docs(*command)
        assert "without isolation from the network" in done.stderr
        assert "isolation" not in done.stdout


def test_a_search_for_a_file_of_questions_prints_what_the_user_model_would_read(
    docs: Docs, notes: Path, tmp_path: Path
) -> None:
    file, found = tmp_path / "questions.jsonl", tmp_path / "found.jsonl"
    asked = [replace(chosen_questions(["fact"], 1)[0], id=name) for name in ("key", "dog")]
    texts = {"key": "Where is the spare key?", "dog": "Wuff?"}
    file.write_text("".join(json.dumps({"id": one.id, "text": texts[one.id]}) + "\n" for one in asked))
    docs("link", str(notes))
    found.write_text(docs("search", "--questions", str(file)).stdout)
    assert found_passages(asked, found) == {"key": ("The spare key is in the blue drawer.",), "dog": ()}


def test_a_search_takes_a_query_or_a_file_of_questions(docs: Docs, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"id": "key"}\n')
    with pytest.raises(InvalidParameter, match="does not contain questions"):
        docs("search", "--questions", str(file))
    for arguments in ([], ["key", "--questions", str(file)]):
        with pytest.raises(InvalidParameter, match="one of the two"):
            docs("search", *arguments)
