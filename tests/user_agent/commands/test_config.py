"""`user-agent config`, `doctor` and `chat`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import user_agent.commands.answering
import user_agent.line.line
import user_agent.tuning.command
from core_server.access.keys import create_key
from ssd2.errors import InvalidParameter
from tests.commands import run_here
from tests.end_to_end.conftest import CoreProcess, running_core
from tests.user_agent.api.conftest import agent_environment
from user_agent.config import FILE, AgentConfig, load_config, save_settings, set_outside
from user_agent.documents.passage import Passage
from user_agent.tuning.command import TuneOptions


def run(home: Path, *arguments: str, typed: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    environment = agent_environment(home, **{"passphrase": "for tests", **settings})
    return run_here(*arguments, environment=environment, typed=typed)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration's folder of this process."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "slingshot"


def test_lists_are_read_from_variables_and_what_is_set_outside_is_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_settings({"alpha": 2, "core": 'a "core":1', "stop_texts": ["one, two", "\u2713 \U0001f600\n"]})
    monkeypatch.setenv("SLINGSHOT_MAX_TOKENS", "32")
    monkeypatch.setenv("SLINGSHOT_CORS_ORIGINS", "http://a, http://b")
    config = load_config(steps=7, model=None)
    assert (config.alpha, config.core) == (2, 'a "core":1')
    assert config.cors_origins == ("http://a", "http://b")
    assert config.stop_texts == ("one, two", "\u2713 \U0001f600\n")
    assert set_outside(steps=7, model=None) == {"steps", "max_tokens", "cors_origins"}


def test_any_max_tokens_can_be_set_and_a_bad_value_names_no_option(tmp_path: Path) -> None:
    assert run(tmp_path, "config", "set", "max_tokens", "5000").returncode == 0
    refused = run(tmp_path, "config", "set", "max_tokens", "0")
    assert (refused.returncode, "--max-tokens" in refused.stderr) == (1, False), "this command has none"
    for command in (("chat",), ("docs", "search", "key")):
        refused = run(tmp_path, *command, max_tokens=0)
        assert "SLINGSHOT_MAX_TOKENS is '0'; give a whole number at least 1" in refused.stderr
        assert "--max-tokens" not in refused.stderr, "no option was given"
    refused = run(tmp_path, "chat", "--lambda-user", "2")
    assert "--lambda-user is '2'; give a number from 0 to 1" in refused.stderr


@pytest.mark.parametrize("changes", [{"lambda_user": 2}, {"nothing": 1}, {"port": "x"}])
def test_a_setting_that_cannot_be_leaves_the_file_as_it_was(folder: Path, changes: dict[str, object]) -> None:
    save_settings({"alpha": 2})
    with pytest.raises(InvalidParameter, match=next(iter(changes)).replace("_", ".")):
        save_settings(changes)
    assert (folder / FILE).read_text() == "alpha = 2\n"


def test_a_file_that_is_no_toml_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_text("alpha = = 2")
    with pytest.raises(InvalidParameter, match=r"cannot read .*config\.toml"):
        load_config()


def test_what_is_set_on_the_command_line_is_shown_and_used(tmp_path: Path) -> None:
    assert run(tmp_path, "config", "set", "max_tokens", "24").returncode == 0
    assert run(tmp_path, "config", "set", "max_tokens", "many").returncode == 1
    shown = json.loads(run(tmp_path, "config", "show", "--json").stdout)
    assert shown["max_tokens"] == 24
    assert shown["passphrase"] == "**********", "secrets are not shown"
    assert run(tmp_path, "config", "show", "--key", api_key="sk-mine").stdout == "sk-mine\n"
    made = run(tmp_path, "config", "show", "--key").stdout
    assert made.startswith("sk-slingshot-")
    assert run(tmp_path, "config", "show", "--key").stdout == made
    assert (tmp_path / "config/slingshot/api-key").stat().st_mode & 0o077 == 0


LINE = {
    "core": "core.example.org:1",
    "ca": "ca.pem",
    "client_certificate": "client.pem",
    "client_key": "client.key",
    "timeout": "5",
}


@pytest.mark.parametrize("source", ["option", "variable", "file"])
def test_ask_and_tune_take_the_line_from_options_variables_or_the_file(
    tmp_path: Path, user_folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    taken: list[tuple[object, ...]] = []

    def stop(*found: object) -> None:
        taken.append(found)
        raise InvalidParameter("enough")

    def opened(config: AgentConfig, *_: object) -> None:
        line = config.line
        stop(line.core, line.ca, line.client_certificate, line.client_key, line.timeout, config.steps)

    def tuned(options: TuneOptions, *_: object) -> None:
        of = options.credentials
        stop(options.core, of.ca, of.client_certificate, of.client_key, options.timeout_s, options.answers.steps)

    monkeypatch.setattr(user_agent.commands.answering, "opened_answering", opened)
    monkeypatch.setattr(user_agent.tuning.command, "run_tune", tuned)
    settings = {**LINE, "steps": "7"}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    if source == "file":
        for name, value in settings.items():
            assert run(tmp_path, "config", "set", name, value).returncode == 0
    for command in (("ask", "Who?"), ("tune", "--docs", "notes", "--yes")):
        given = settings if source == "variable" else {}
        done = run(tmp_path, *command, *(options if source == "option" else ()), user_model=user_folder, **given)
        assert "enough" in done.stderr, done.stderr
    files = [Path(LINE[name]) for name in ("ca", "client_certificate", "client_key")]
    assert taken == [(LINE["core"], *files, 5.0, 7)] * 2


def test_tune_takes_the_linked_folders_as_ask_does(
    tmp_path: Path, user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/home.md").write_text("The shed code is 4711.\n")
    assert run(tmp_path, "docs", "link", str(tmp_path / "notes")).returncode == 0
    taken: list[object] = []

    def tuned(options: TuneOptions, _: object, __: object, linked: Callable[[], list[Passage]]) -> None:
        taken.append((options.docs, [passage.text for passage in linked()]))
        raise InvalidParameter("enough")

    monkeypatch.setattr(user_agent.tuning.command, "run_tune", tuned)
    for options in ((), ("--documents", "none")):
        assert "enough" in run(tmp_path, "tune", "--yes", *options, core="a:1", user_model=user_folder).stderr
    assert taken == [((), ["The shed code is 4711."]), ((), [])]


def test_ask_without_a_core_starts_the_demo_s_and_says_so(
    tmp_path: Path, user_folder: Path, core: CoreProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def own_core(_: str) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(address=core.address, failure=None, title="the demo's core")

    monkeypatch.setattr(user_agent.line.line, "own_core", own_core)
    done = run(tmp_path, "ask", "Who?", "--json", "--steps", "3", "--max-tokens", "8", user_model=user_folder)
    assert f"user-agent: core {core.address}, the demo's core, started on this machine\n" in done.stderr
    assert json.loads(done.stdout)["bytes_up"] > 0


def test_tune_without_a_core_says_how_to_give_one(tmp_path: Path, user_folder: Path) -> None:
    refused = run(tmp_path, "tune", "--docs", str(tmp_path), user_model=user_folder)
    assert refused.returncode == 1
    assert "`user-agent config set core HOST:PORT`" in refused.stderr


def test_one_setting_is_printed_with_what_it_is_now(tmp_path: Path) -> None:
    assert run(tmp_path, "config", "get", "core").stdout == "\n"
    assert run(tmp_path, "config", "get", "core", core="a:1").stdout == "a:1\n"
    assert run(tmp_path, "config", "get", "passphrase").stdout == "**********\n"
    refused = run(tmp_path, "config", "get", "lamda_user")
    assert refused.returncode == 1
    assert "did you mean lambda_user?" in refused.stderr


def test_ask_takes_a_kept_lambda_for_a_given_one(tmp_path: Path, core: CoreProcess, user_folder: Path) -> None:
    asked = ("ask", "Who?", "--json")
    settings = {"user_model": user_folder, "steps": 3, "max_tokens": 8, "lambda_user": 1}
    assert json.loads(run(tmp_path, *asked, **settings).stdout)["bytes_up"] == 0, "it needs no core"
    run(tmp_path, "config", "set", "core", core.address)
    assert json.loads(run(tmp_path, *asked, **settings).stdout)["bytes_up"] == 0
    answer = json.loads(run(tmp_path, *asked, "--lambda-user", "0.3", **settings).stdout)
    assert answer["bytes_up"] > 0


def test_the_doctor_says_what_is_right_and_what_to_do(tmp_path: Path, core: CoreProcess, user_folder: Path) -> None:
    done = run(tmp_path, "doctor", "--core", core.address, "--json", user_model=user_folder)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0
    assert all(finding["is_ok"] for finding in findings.values())
    assert "on this machine" in findings["core"]["says"]
    assert "passphrase" in findings["key"]["says"]
    ill = run(tmp_path, "doctor", "--core", "127.0.0.1:9", "--json", user_model=tmp_path, timeout=1)
    findings = {finding["what"]: finding for finding in json.loads(ill.stdout)["findings"]}
    assert ill.returncode == 1
    assert {what for what, finding in findings.items() if not finding["is_ok"]} == {"user model", "core"}
    other = run(tmp_path, "doctor", "--core", core.address, user_model=user_folder, passphrase="other")
    assert other.returncode == 1
    assert "SLINGSHOT_PASSPHRASE" in " ".join(other.stdout.split())


def test_the_doctor_says_where_no_core_is_asked(tmp_path: Path, user_folder: Path) -> None:
    done = run(tmp_path, "doctor", "--json", user_model=user_folder, lambda_user=1)
    (found,) = (one for one in json.loads(done.stdout)["findings"] if one["what"] == "core")
    assert found["says"] == "λ is 1, so none is asked or started"


def test_the_doctor_warns_where_files_are_read_on_the_network(
    tmp_path: Path, core: CoreProcess, user_folder: Path, refused_namespaces: None
) -> None:
    asked = ("doctor", "--core", core.address)
    done = run_here(*asked, "--json", environment=agent_environment(tmp_path, user_model=user_folder, passphrase="x"))
    (found,) = (one for one in json.loads(done.stdout)["findings"] if one["what"] == "reading files")
    assert (found["is_ok"], found["is_warning"], done.returncode) == (True, True, 0)
    assert "without isolation from the network" in found["says"]


def test_the_doctor_says_when_the_core_refuses_the_key(tmp_path: Path, core_folder: Path, user_folder: Path) -> None:
    key, _ = create_key(tmp_path / "keys.json", "alice")
    with running_core(core_folder, "--keys", str(tmp_path / "keys.json")) as keyed:
        for given, is_ok, says in (
            ({}, False, "get one from its provider"),
            ({"core_key": f"{key}x"}, False, "set-core-key"),
            ({"core_key": key}, True, "API key from SLINGSHOT_CORE_KEY"),
        ):
            done = run(tmp_path, "doctor", "--core", keyed.address, "--json", user_model=user_folder, **given)
            (found,) = (one for one in json.loads(done.stdout)["findings"] if one["what"] == "core")
            assert (done.returncode, found["is_ok"], says in found["says"]) == (not is_ok, is_ok, True)
            assert key not in done.stdout + done.stderr


def test_chat_and_ask_send_the_key(tmp_path: Path, core_folder: Path, user_folder: Path) -> None:
    key, _ = create_key(tmp_path / "keys.json", "alice")
    settings = {"user_model": user_folder, "steps": 3, "max_tokens": 8}
    with running_core(core_folder, "--keys", str(tmp_path / "keys.json")) as keyed:
        for command in (("chat",), ("ask", "Who?", "--steps", "3", "--max-tokens", "8")):
            asked = (*command, "--core", keyed.address)
            assert "timesteps" in run(tmp_path, *asked, typed="Who?\n", core_key=key, **settings).stderr
            refused = run(tmp_path, *asked, typed="Who?\n", **settings)
            assert "valid API key" in refused.stderr
            assert "timesteps" not in refused.stderr


def test_a_chat_answers_line_by_line_and_is_kept_unless_it_is_not_to_be(
    tmp_path: Path, core: CoreProcess, user_folder: Path
) -> None:
    asked = ("chat", "--core", core.address)
    settings = {"user_model": user_folder, "steps": 3, "max_tokens": 8}
    done = run(tmp_path, *asked, typed="Where is it?\n" + "word " * 200 + "\nWho?\n", **settings)
    assert done.returncode == 0
    assert done.stderr.count("timesteps") == 2
    assert "shorten it" in done.stderr, "what cannot be answered does not end the chat"
    run(tmp_path, *asked, "--no-log", typed="Secret?\n", **settings)
    kept = _conversations(tmp_path)
    assert [[message.text for message in said if message.role == "user"] for said in kept] == [["Where is it?", "Who?"]]


def test_ask_is_kept_too_with_its_tokens_and_uses_linked_documents(
    tmp_path: Path, core: CoreProcess, user_folder: Path
) -> None:
    (tmp_path / "notes.md").write_text("The shed code is 4711.")
    run(tmp_path, "docs", "link", str(tmp_path / "notes.md"))
    asked = ("ask", "What is the shed code?", "--core", core.address, "--steps", "3", "--max-tokens", "8", "--json")
    answer = json.loads(run(tmp_path, *asked, user_model=user_folder).stdout)
    assert [passage["text"] for passage in answer["citations"]] == ["The shed code is 4711."]
    run(tmp_path, *asked, "--no-log", user_model=user_folder)
    ((reply, question),) = _conversations(tmp_path, newest_first=True)
    assert (question.text, reply.text) == ("What is the shed code?", answer["text"])
    assert len(reply.data["tokens"]) == len(answer["tokens"])
    traced = run(tmp_path, "ledger", "show", "--trace", reply.trace, "--json").stdout
    assert [entry["direction"] for entry in json.loads(traced)["entries"]].count("up") == answer["round_trips"] + 2


def _conversations(home: Path, *, newest_first: bool = False) -> list[list]:
    from user_agent.store.database import open_database
    from user_agent.store.encryption_key import StoreKey
    from user_agent.store.history import History

    connection = open_database(home / "data/slingshot/history.sqlite", StoreKey("passphrase", b"for tests"))
    history = History(connection)
    said = [history.messages(conversation.id) for conversation in history.conversations()]
    connection.close()
    return said if newest_first else [messages[::-1] for messages in said]
