from __future__ import annotations

import secrets
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked

from user_agent.errors import StoreKeyWrong
from user_agent.store.encryption_key import KEY_FILE, store_key


class _Keyring(KeyringBackend):
    """A keyring of the desktop kind, in memory."""

    priority = 5  # type: ignore[assignment]
    viable = False  # it is for these tests, and none that looks for a keyring is to find it

    def __init__(self, *, is_locked: bool = False) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = is_locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise KeyringLocked
        self.kept[service, username] = password


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyring.core._keyring_backend", NoKeyring())  # set_keyring sets it, so it is put back


def test_without_a_keyring_the_key_is_in_a_file_of_its_owner(tmp_path: Path) -> None:
    key = store_key(tmp_path / "config", None)
    assert key.source == "file"
    assert store_key(tmp_path / "config", "") == key
    assert stat.S_IMODE((tmp_path / "config" / KEY_FILE).stat().st_mode) == 0o600
    assert store_key(tmp_path / "other", None) != key


def test_with_a_keyring_no_key_is_on_the_disk(tmp_path: Path) -> None:
    keyring.set_keyring(_Keyring())
    key = store_key(tmp_path, None)
    assert key.source == "keyring"
    assert store_key(tmp_path, None) == key
    assert (tmp_path / KEY_FILE).read_text() == "keyring\n"


def test_a_keyring_that_is_locked_later_does_not_end_in_a_second_key(tmp_path: Path) -> None:
    desktop = _Keyring()
    keyring.set_keyring(desktop)
    key = store_key(tmp_path, None)
    for unusable in (NoKeyring(), _Keyring(is_locked=True), _Keyring()):
        keyring.set_keyring(unusable)
        with pytest.raises(StoreKeyWrong, match="unlock the keyring"):
            store_key(tmp_path, None)
    keyring.set_keyring(desktop)
    assert store_key(tmp_path, None) == key


def test_a_keyring_that_comes_later_does_not_change_the_key(tmp_path: Path) -> None:
    key = store_key(tmp_path, None)
    keyring.set_keyring(_Keyring())
    assert store_key(tmp_path, None) == key


def test_a_keyring_that_is_locked_at_the_first_start_is_left_alone(tmp_path: Path) -> None:
    keyring.set_keyring(_Keyring(is_locked=True))
    assert store_key(tmp_path, None).source == "file"


def test_a_passphrase_goes_before_and_leaves_nothing_behind(tmp_path: Path) -> None:
    key = store_key(tmp_path, "correct horse")
    assert (key.source, key.secret) == ("passphrase", b"correct horse")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_key_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("what?")
    with pytest.raises(StoreKeyWrong, match="restore the file"):
        store_key(tmp_path, None)
    assert (tmp_path / KEY_FILE).read_text() == "what?"


def test_first_starts_at_the_same_time_agree_on_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = secrets.token_hex

    def make_slowly(length: int) -> str:
        time.sleep(0.1)
        return made(length)

    monkeypatch.setattr(secrets, "token_hex", make_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store_key(tmp_path, None), range(16)))) == 1
