"""Keys of the REST endpoint and their file."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ssd2.errors import InvalidParameter, NotFound
from user_agent.store import access_keys
from user_agent.store.access_keys import CLIENT_FILE, FILE, PAGE_FILE, SCOPES, AccessKeys


@pytest.fixture(autouse=True)
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_keys, "READ_AGAIN_S", 0.0)


def test_a_new_folder_gets_a_key_that_asks_and_one_for_the_page(tmp_path: Path) -> None:
    keys = AccessKeys(tmp_path)
    assert keys.find(keys.client).scopes == ("ask",)
    assert keys.find(keys.page).scopes == SCOPES
    assert keys.client == AccessKeys(tmp_path).client != keys.page == AccessKeys(tmp_path).page
    for name in (CLIENT_FILE, PAGE_FILE):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_one_key_of_0_1_still_does_everything(tmp_path: Path) -> None:
    (tmp_path / CLIENT_FILE).write_text("sk-slingshot-7hR0QqjwhBgM3MrzVe3tAgxBvkK3qHAA\n")
    keys = AccessKeys(tmp_path)
    assert keys.find(keys.client).scopes == SCOPES
    keys.revoke("default")
    assert keys.find("sk-slingshot-7hR0QqjwhBgM3MrzVe3tAgxBvkK3qHAA") is None
    assert keys.find(keys.client).scopes == ("ask",), "the next one asks only"


def test_a_configured_key_does_everything_in_place_of_the_clients(tmp_path: Path) -> None:
    unset = AccessKeys(tmp_path).client
    keys = AccessKeys(tmp_path, "sk-mine")
    assert (keys.client, keys.find("sk-mine").scopes, keys.find(unset)) == ("sk-mine", SCOPES, None)
    with pytest.raises(InvalidParameter, match="is a setting"):
        keys.revoke("configured")


def test_created_and_revoked_keys_count_at_once_in_an_agent_that_runs(tmp_path: Path) -> None:
    running, command = AccessKeys(tmp_path), AccessKeys(tmp_path)
    assert running.find("sk-slingshot-none") is None
    key = command.create("backup", ["read-ledger", "manage"])
    assert (running.find(key).name, running.find(key).scopes) == ("backup", ("manage", "read-ledger"))
    command.revoke("backup")
    assert running.find(key) is None
    page = running.page
    command.revoke("page")
    assert running.find(page) is None


def test_of_a_created_key_only_its_fingerprint_is_stored(tmp_path: Path) -> None:
    key = AccessKeys(tmp_path).create("notebook", ["ask"])
    assert not any(key.removeprefix("sk-slingshot-") in file.read_text() for file in tmp_path.iterdir())
    (entry,) = json.loads((tmp_path / FILE).read_text())["keys"]
    assert (entry["name"], entry["scopes"], len(entry["sha256"])) == ("notebook", ["ask"], 64)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("", ["ask"]),
        ("a" * 65, ["ask"]),
        ("a/b", ["ask"]),
        ("a\n", ["ask"]),
        ("a", []),
        ("a", ["all"]),
        ("page", ["ask"]),
        ("default", ["ask"]),
        ("configured", ["ask"]),
        ("taken", ["ask"]),
    ],
)
def test_names_and_scopes_that_are_none_or_taken_are_refused(tmp_path: Path, name: str, scopes: list) -> None:
    AccessKeys(tmp_path).create("taken", ["ask"])
    with pytest.raises(InvalidParameter):
        AccessKeys(tmp_path).create(name, scopes)
    assert [one.name for one in AccessKeys(tmp_path).all()] == ["taken"]


def test_a_key_that_is_not_there_cannot_be_revoked(tmp_path: Path) -> None:
    for name in ("other", "page", "default", "configured"):
        with pytest.raises(NotFound, match="there is no key"):
            AccessKeys(tmp_path).revoke(name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{"name": "a"}]}', '{"keys": [5]}', "\udcff"])
def test_a_damaged_file_lets_in_no_created_key_and_the_page_still_opens(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = AccessKeys(tmp_path)
    key = keys.create("notebook", ["ask"])
    (tmp_path / FILE).write_text(text, errors="surrogateescape")
    assert keys.find(key) is None
    assert keys.find(keys.page).scopes == SCOPES
    assert "not let in" in caplog.text
    with pytest.raises(InvalidParameter, match="does not contain keys"):
        keys.create("another", ["ask"])
