"""Keys of agents: a file of their fingerprints, changed by commands and read again by a running server.

A key is `sk-ID-SECRET`. The ID finds its entry; the secret has 256 random bits, so one SHA-256 of the key is all that
has to be kept of it: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ssd2.errors import InvalidParameter, NotFound

MAX_NAME_LENGTH = 64
READ_AGAIN_S = 1.0
"""How often a running server looks whether its file has changed, at most."""

_NO_SHA256 = hashlib.sha256(b"").hexdigest()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyEntry:
    """Stored entry of a key.

    Attributes:
        id: part of the key that finds this entry.
        name: whose it is, for the provider.
        sha256: of the whole key, in hex.
        created: time in ISO 8601, UTC.
        max_sessions: answers in progress at a time under this key; None for half of those that the server takes, or for
            all if there is no other key.
        tokens_per_minute: that it may have computed, in the long run; None for any number.
        timesteps_per_minute: likewise.
    """

    id: str
    name: str
    sha256: str
    created: str
    max_sessions: int | None = None
    tokens_per_minute: int | None = None
    timesteps_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in (self.id, self.name, self.sha256, self.created)):
            raise TypeError("id, name, sha256 and created of a key are texts")
        if not self.name.isprintable() or not 0 < len(self.name) <= MAX_NAME_LENGTH:
            raise InvalidParameter(f"a key's name must have 1 to {MAX_NAME_LENGTH} printable characters")
        for name in ("max_sessions", "tokens_per_minute", "timesteps_per_minute"):
            limit = getattr(self, name)
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise InvalidParameter(f"{name.replace('_', ' ')} is {limit}; it must be at least 1")


def read_keys(file: Path) -> list[KeyEntry]:
    """All keys of a file, the oldest first.

    Raises:
        InvalidParameter: if there is no such file, or it does not hold keys.
    """
    try:
        return [KeyEntry(**values) for values in json.loads(file.read_text(encoding="utf-8"))["keys"]]
    except OSError as error:
        raise InvalidParameter(
            f"cannot read the key file {file}: {error.strerror}; create one first", parameter="keys"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidParameter(
            f"{file} is not a file of keys; restore a copy, or create a new file", parameter="keys"
        ) from error


def create_key(file: Path, name: str, **limits: int | None) -> tuple[str, KeyEntry]:
    """Make a key, and the file if there is none.

    Args:
        file: of the keys.
        name: whose it is.
        limits: of `KeyEntry`, by name; without one, any number.

    Returns:
        The key, which is kept nowhere, and its entry.

    Raises:
        InvalidParameter: if the name is taken or a limit is none, or the file cannot be read or written.
    """
    with _alone_with(file):
        entries = read_keys(file) if file.exists() else []
        if any(name in (entry.id, entry.name) for entry in entries):
            raise InvalidParameter(f"a key {name!r} exists already; choose another name, or revoke that key first")
        key_id = secrets.token_hex(6)
        key = f"sk-{key_id}-{secrets.token_urlsafe(32)}"
        created = datetime.now(UTC).isoformat(timespec="seconds")
        entry = KeyEntry(key_id, name, _sha256(key), created, **limits)
        _write(file, [*entries, entry])
    return key, entry


def revoke_key(file: Path, id_or_name: str) -> KeyEntry:
    """Take a key out of the file.

    Raises:
        NotFound: if there is none of that ID or name.
        InvalidParameter: if the file cannot be read or written.
    """
    with _alone_with(file):
        entries = read_keys(file)
        found = next((entry for entry in entries if id_or_name in (entry.id, entry.name)), None)
        if found is None:
            raise NotFound(f"{file} contains no key {id_or_name!r}; choose one of its keys", parameter="key")
        _write(file, [entry for entry in entries if entry is not found])
    return found


# See docs/decisions/016-keys-and-certificates.md.
class KeyReader:
    """The keys of a file, as it is now: a running server takes up its changes."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            InvalidParameter: if it cannot be read.
        """
        self._file = file
        self._state, self._looked_at = _state(file), time.monotonic()  # before it is read: it may change meanwhile
        self._entries = {entry.id: entry for entry in read_keys(file)}

    @property
    def count(self) -> int:
        """Keys that there are, as read last."""
        return len(self._entries)

    def find(self, key: str) -> KeyEntry | None:
        """The entry of a key; None if it is no key of this file. Both take the same path."""
        entry = self.entry(key.removeprefix("sk-").partition("-")[0])
        is_right = hmac.compare_digest(_sha256(key), entry.sha256 if entry else _NO_SHA256)
        return entry if is_right else None

    def entry(self, key_id: str) -> KeyEntry | None:
        """The entry of an ID, as it is now; None once it is revoked."""
        if time.monotonic() - self._looked_at >= READ_AGAIN_S:
            self._look()
        return self._entries.get(key_id)

    def _look(self) -> None:
        """Read the file again if it has changed; one that cannot be read lets nobody in."""
        self._looked_at, before = time.monotonic(), self._state
        self._state = _state(self._file)
        if self._state == before:
            return
        try:
            self._entries = {entry.id: entry for entry in read_keys(self._file)}
            _log.info("the key file has changed: %d keys", len(self._entries))
        except InvalidParameter as error:
            if self._entries:
                _log.error("no key is valid any more: %s", error)
            self._entries, self._state = {}, None  # so that it is tried again


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@contextmanager
def _alone_with(file: Path) -> Iterator[None]:
    """For one process at a time: two that add a key at once must not lose one. The file is replaced, its folder not."""
    try:
        descriptor = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(file, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)  # that the file was replaced: a key that was revoked must not come back
    finally:
        os.close(descriptor)


def _write(file: Path, entries: Sequence[KeyEntry]) -> None:
    """A whole new file in place of the old one, its owner's alone: a crash leaves the one or the other.

    Whoever changes it, the server that reads it may still do so.
    """
    new = file.with_name(f"{file.name}.new")
    # Limits that are not set are left out: a server of a release that does not know one of them reads the file too.
    keys = [{name: value for name, value in asdict(entry).items() if value is not None} for entry in entries]
    text = json.dumps({"keys": keys}, ensure_ascii=False, indent=1) + "\n"
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text)
            if file.exists() and os.geteuid() == 0:
                os.fchown(opened.fileno(), file.stat().st_uid, file.stat().st_gid)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> InvalidParameter:
    return InvalidParameter(
        f"cannot write the key file {file}: {error.strerror}; choose another file", parameter="keys"
    )
