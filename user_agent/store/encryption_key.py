"""The key that everything kept on the device is encrypted with."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from filelock import lock_descriptor

from user_agent.errors import StoreKeyWrong, StoreUnreadable
from user_agent.store.owner_only import owner_only

KEY_FILE = "store.key"
KEYRING_SERVICE = "slingshot"
_IN_KEYRING = "keyring"
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoreKey:
    """Key that the stores are encrypted with.

    Attributes:
        source: where it comes from: the system's keyring, the user's passphrase, or a file that its owner alone reads.
            The file protects a lost disk or backup only if it is not on it.
        secret: as SQLite3 Multiple Ciphers takes it: `raw:` with 256 bits in hex, or a passphrase for its own key
            derivation.
    """

    source: Literal["keyring", "passphrase", "file"]
    secret: bytes = field(repr=False)


def store_key(config_folder: Path, passphrase: str | None) -> StoreKey:
    """The passphrase's key if there is one, else the one made at the first start: in the keyring, or else in a file.

    Where the first start put it is written down, so that a keyring that is locked or out of reach later does not end
    in a second key.

    Args:
        config_folder: where `store.key` is.
        passphrase: the user's; None or empty without one.

    Raises:
        StoreKeyWrong: if the key made before is not to be had.
        StoreUnreadable: if `store.key` cannot be read or written.
    """
    if passphrase:
        return StoreKey("passphrase", passphrase.encode())
    file = config_folder / KEY_FILE
    with _alone_with(file) as opened:
        kept = opened.read().strip()
        if not kept:
            kept = _IN_KEYRING if _make_in_keyring(_account(file)) else secrets.token_hex(32)
            opened.write(f"{kept}\n")
    if kept == _IN_KEYRING:
        return _raw("keyring", _from_keyring(_account(file)) or "", f"the system's keyring for {_account(file)!r}")
    return _raw("file", kept, str(file))


def _raw(source: Literal["keyring", "file"], key: str, place: str) -> StoreKey:
    if not _KEY.fullmatch(key):
        raise StoreKeyWrong(
            f"the data's encryption key is missing from {place}; unlock the keyring or restore the file, or set the "
            "passphrase if there was one",
            parameter="passphrase",
        )
    return StoreKey(source, f"raw:{key}".encode())


@contextmanager
def _alone_with(file: Path) -> Iterator[TextIO]:
    """The file, made if missing, for one process at a time: two first starts must not make two keys."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as opened:
            owner_only(opened.fileno())
            lock_descriptor(opened.fileno())
            yield opened
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnreadable(
            f"cannot use the key file {file}: {error}; choose another configuration folder", parameter="config_folder"
        ) from error


def _account(file: Path) -> str:
    return str(file.absolute())


def _make_in_keyring(account: str) -> bool:
    """Make a key in the keyring unless an interrupted start left one there; True if it now holds one."""
    import keyring
    from keyring.errors import KeyringError

    if keyring.get_keyring().priority < 1:  # what keyring does not recommend: none, or a file in plain text
        return False
    try:
        if not keyring.get_password(KEYRING_SERVICE, account):
            keyring.set_password(KEYRING_SERVICE, account, secrets.token_hex(32))
        return bool(keyring.get_password(KEYRING_SERVICE, account))
    except KeyringError:
        return False


def _from_keyring(account: str) -> str | None:
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(KEYRING_SERVICE, account)
    except KeyringError:
        return None
