"""The file of keys: what is in it, who can change it, and that a running server sees it."""

from __future__ import annotations

import hmac
import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from core_server.access import keys as keys_module
from core_server.access.keys import READ_AGAIN_S, KeyReader, create_key, read_keys, revoke_key
from ssd2.errors import InvalidParameter, NotFound


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock: its only number is what it shows."""
    shown = [1000.0]
    monkeypatch.setattr(keys_module.time, "monotonic", lambda: shown[0])
    return shown


def test_a_key_is_kept_as_a_fingerprint_in_a_file_of_its_owner(file: Path) -> None:
    key, entry = create_key(file, "alice", max_sessions=2)
    assert KeyReader(file).find(key) == entry
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    prefix, key_id, secret = key.split("-", 2)
    assert (prefix, key_id) == ("sk", entry.id)
    assert len(secret) >= 43, "256 bits in base64"
    assert secret not in file.read_text()
    assert json.loads(file.read_text())["keys"][0]["max_sessions"] == 2
    assert list(file.parent.iterdir()) == [file], "nothing else is left behind"


def test_a_change_replaces_the_file_as_a_whole(file: Path) -> None:
    create_key(file, "alice")
    before = file.open()
    create_key(file, "bob")
    assert len(json.load(before)["keys"]) == 1, "who reads it meanwhile reads the old one to its end"
    before.close()


def test_a_secret_of_kubernetes_is_read_anew_when_it_has_been_swapped(tmp_path: Path, now: list[float]) -> None:
    mounted = tmp_path / "mounted"

    def swap(version: str) -> None:
        """As kubelet does: a folder for each version, and one link that is replaced."""
        (mounted / version).mkdir(parents=True)
        shutil.copy(tmp_path / "keys.json", mounted / version)
        (mounted / version / "keys.json").chmod(0o440)
        (mounted / "..new").symlink_to(version)
        (mounted / "..new").replace(mounted / "..data")

    alice, bob = create_key(tmp_path / "keys.json", "alice")[0], create_key(tmp_path / "keys.json", "bob")[0]
    swap("..first")
    (mounted / "keys.json").symlink_to("..data/keys.json")
    reader = KeyReader(mounted / "keys.json")
    assert reader.find(alice)
    revoke_key(tmp_path / "keys.json", "alice")
    swap("..second")
    now[0] += READ_AGAIN_S
    assert reader.find(alice) is None
    assert reader.find(bob), "the others are as they were"


def test_another_secret_under_a_right_id_is_no_key(file: Path) -> None:
    key, entry = create_key(file, "alice")
    reader = KeyReader(file)
    for wrong in (key[:-1], f"{key}x", f"sk-{entry.id}-", entry.id, entry.sha256, "", "sk-"):
        assert reader.find(wrong) is None


def test_a_secret_is_compared_in_constant_time_whether_its_id_is_known_or_not(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = create_key(file, "alice")
    reader, compare = KeyReader(file), Mock(wraps=hmac.compare_digest)
    monkeypatch.setattr(keys_module.hmac, "compare_digest", compare)
    for number, given in enumerate((key, f"{key}x", "sk-0-0", "")):
        assert (reader.find(given) is not None) == (given == key)
        assert compare.call_count == number + 1
        assert {len(fingerprint) for fingerprint in compare.call_args.args} == {64}


def test_names_are_given_once_and_find_the_key_as_its_id_does(file: Path) -> None:
    _, alice = create_key(file, "alice")
    _, bob = create_key(file, "bob")
    for taken in ("alice", bob.id):
        with pytest.raises(InvalidParameter, match="already"):
            create_key(file, taken)
    assert revoke_key(file, "alice") == alice
    assert revoke_key(file, bob.id) == bob
    assert read_keys(file) == []
    with pytest.raises(NotFound, match="contains no key"):
        revoke_key(file, "alice")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "1 to 64"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "a" * 65}, "1 to 64"),
        ({"max_sessions": 0}, "max sessions is 0"),
        ({"tokens_per_minute": -1}, "tokens per minute is -1"),
        ({"timesteps_per_minute": 0}, "timesteps per minute is 0"),
    ],
)
def test_what_is_no_name_or_limit_leaves_the_file_as_it_was(file: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        create_key(file, **{"name": "alice", **changes})
    assert not file.exists()


def test_a_limit_that_is_not_set_is_not_in_the_file(file: Path) -> None:
    """So that a server of a release before it was there reads the file."""
    create_key(file, "alice", timesteps_per_minute=9)
    create_key(file, "bob")
    alice, bob = json.loads(file.read_text())["keys"]
    assert alice["timesteps_per_minute"] == 9
    assert set(bob) == {"id", "name", "sha256", "created"}
    assert [entry.timesteps_per_minute for entry in read_keys(file)] == [9, None]


def test_keys_made_at_the_same_time_are_all_kept(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_key(file, f"agent {number}"), range(16)))
    reader = KeyReader(file)
    assert all(reader.find(key) == entry for key, entry in made)


def test_a_running_server_sees_a_change_within_a_second_and_looks_no_more_often(file: Path, now: list[float]) -> None:
    key, entry = create_key(file, "alice")
    reader = KeyReader(file)
    revoke_key(file, "alice")
    assert reader.find(key) == entry
    now[0] += 1.0
    assert reader.find(key) is None
    other, _ = create_key(file, "bob")
    now[0] += 1.0
    assert reader.find(other) is not None


def test_a_file_that_is_damaged_or_gone_lets_nobody_in_until_it_is_back(file: Path, now: list[float]) -> None:
    key, _ = create_key(file, "alice")
    reader, whole = KeyReader(file), file.read_text()
    for damaged in ("{", '{"keys": [{"id": 1}]}', None):
        file.unlink() if damaged is None else file.write_text(damaged)
        now[0] += 1.0
        assert reader.find(key) is None
        file.write_text(whole)
        now[0] += 1.0
        assert reader.find(key) is not None


def test_a_file_that_could_not_be_read_once_is_tried_again(
    file: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process was out of descriptors: nothing about the file changes afterwards."""
    key, _ = create_key(file, "alice")
    reader = KeyReader(file)
    create_key(file, "bob")
    with monkeypatch.context() as failing:
        failing.setattr(keys_module, "read_keys", Mock(side_effect=InvalidParameter("too many open files")))
        now[0] += 1.0
        assert reader.find(key) is None
    now[0] += 1.0
    assert reader.find(key) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes files of others")
def test_whoever_changes_the_file_its_owner_can_still_read_it(file: Path) -> None:
    create_key(file, "alice")
    os.chown(file, 12345, 23456)
    create_key(file, "bob")
    revoke_key(file, "alice")
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (12345, 23456, 0o600)


NO_SHA256 = '{"keys": [{"id": "a", "name": "alice", "sha256": null, "created": "2026"}]}'


@pytest.mark.parametrize("text", [None, "", "[]", NO_SHA256, '{"keys": 1}', '{"keys": [{"name": "alice"}]}'])
def test_a_server_does_not_start_with_a_file_that_holds_no_keys(file: Path, text: str | None) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidParameter, match=r"create one first" if text is None else "is not a file of keys"):
        KeyReader(file)
