"""Keys of the REST endpoint: what each may do, kept as fingerprints in a file that a running agent reads again.

Two keys are kept as they are, in files that only their owner reads, because people have to be shown them again: the
page's, which may do everything, and that of clients, which may ask. A key has 192 random bits, so one SHA-256 of it is
all that has to be kept of the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from filelock import lock_descriptor

from ssd2.errors import InvalidParameter, NotFound
from user_agent.store.tuned import write_private

Scope: TypeAlias = Literal["ask", "manage", "read-ledger"]
"""ask: answers, models, traces of answers. manage: documents, conversations, settings, keys. read-ledger: the ledger
and the agent's figures."""

SCOPES: tuple[Scope, ...] = get_args(Scope)

FILE = "keys.json"
CLIENT_FILE, PAGE_FILE = "api-key", "page-key"
CLIENT, PAGE, CONFIGURED = "default", "page", "configured"
"""Names of the keys that nobody has created: in the two files, and as the setting `api_key`."""

MAX_NAME_LENGTH = 64
READ_AGAIN_S = 1.0
"""How often a running agent looks whether a file has changed, at most."""

_ASKS = "sk-slingshot-ask-"
"""Beginning of a client key; one without it was made by 0.1, when a key could do everything, and still can."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccessKey:
    """Entry of a key.

    Attributes:
        name: tells it from the others.
        scopes: what it may do.
        sha256: of the key, in hex.
        created: time in ISO 8601, UTC; "" for keys that nobody has created.
    """

    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created: str = ""

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in (self.name, self.sha256, self.created)):
            raise TypeError("name, sha256 and created of a key are texts")
        if not self.name.isprintable() or not 0 < len(self.name) <= MAX_NAME_LENGTH or "/" in self.name:
            raise InvalidParameter(f"a key's name must have 1 to {MAX_NAME_LENGTH} printable characters, and no /")
        if not self.scopes or (unknown := [scope for scope in self.scopes if scope not in SCOPES]):
            what = f"{str(unknown[0])[:80]!r} is no scope" if self.scopes else "a key needs a scope"
            raise InvalidParameter(f"{what}; choose from {', '.join(SCOPES)}")


class AccessKeys:
    """Keys of one configuration folder. For any number of threads."""

    def __init__(self, folder: Path, configured: str | None = None) -> None:
        """Take up the keys of a folder; nothing is read or written yet.

        Args:
            folder: of the configuration.
            configured: the setting `api_key`, in place of the client key and with all scopes; None without one.
        """
        self._folder, self._configured = folder, configured
        self._looking = threading.Lock()
        self._looked_at, self._state = float("-inf"), object()
        self._found: dict[str, AccessKey] = {}

    @property
    def client(self) -> str:
        """The key to give to clients, made if there is none.

        Raises:
            InvalidParameter: if it can be neither read nor written.
        """
        return self._configured or _kept(self._folder / CLIENT_FILE, _ASKS)

    @property
    def page(self) -> str:
        """The page's key, made if there is none; errors as of `client`."""
        return _kept(self._folder / PAGE_FILE, "sk-slingshot-page-")

    def find(self, key: str) -> AccessKey | None:
        """Return the entry of a key; None if it is not valid. Changed files count within `READ_AGAIN_S`."""
        with self._looking:
            now = time.monotonic()
            if now - self._looked_at >= READ_AGAIN_S:
                self._looked_at = now
                if (state := [_state(self._folder / name) for name in (FILE, CLIENT_FILE, PAGE_FILE)]) != self._state:
                    self._found, self._state = {one.sha256: one for one in self._valid()}, state
            return self._found.get(_sha256(key))

    def all(self) -> list[AccessKey]:
        """Return all keys, those that nobody has created first.

        Raises:
            InvalidParameter: if the file does not hold keys.
        """
        return [*self._given(), *_read(self._folder / FILE)]

    def create(self, name: str, scopes: Sequence[Scope]) -> str:
        """Make a key and keep its fingerprint.

        Returns:
            The key; it is nowhere else.

        Raises:
            InvalidParameter: if name or scopes are none, the name is taken, or the file cannot be read or written.
        """
        key = f"sk-slingshot-{secrets.token_urlsafe(24)}"
        ordered = tuple(scope for scope in SCOPES if scope in scopes) if set(scopes) <= set(SCOPES) else tuple(scopes)
        entry = AccessKey(name, ordered, _sha256(key), datetime.now(UTC).isoformat(timespec="seconds"))
        with self._alone():
            entries = _read(self._folder / FILE)
            if name in (CLIENT, PAGE, CONFIGURED, *(one.name for one in entries)):
                raise InvalidParameter(f"there is a key {name!r} already; revoke it first, or choose another name")
            self._write([*entries, entry])
        self._looked_at = float("-inf")
        return key

    def revoke(self, name: str) -> None:
        """Make a key invalid. The page's and the clients' are made anew when they are asked for next.

        Raises:
            NotFound: if there is no key of this name.
            InvalidParameter: if it is a setting, or the file cannot be read or written.
        """
        if name == CONFIGURED and self._configured:
            raise InvalidParameter("this key is a setting; change it where the agent is started", parameter="api_key")
        with self._alone():
            entries = _read(self._folder / FILE)
            file = self._folder / {CLIENT: CLIENT_FILE, PAGE: PAGE_FILE}.get(name, FILE)
            if name in (CLIENT, PAGE) and file.is_file():
                file.unlink()
            elif any(one.name == name for one in entries):
                self._write([one for one in entries if one.name != name])
            else:
                names = ", ".join(one.name for one in self.all()) or "none so far"
                raise NotFound(f"there is no key {name[:MAX_NAME_LENGTH]!r}; the keys are: {names}")
        self._looked_at = float("-inf")

    def _given(self) -> Iterator[AccessKey]:
        """Yield the keys that nobody has created, as far as they are there."""
        if page := _text(self._folder / PAGE_FILE):
            yield AccessKey(PAGE, SCOPES, _sha256(page))
        if self._configured:
            yield AccessKey(CONFIGURED, SCOPES, _sha256(self._configured))
        elif client := _text(self._folder / CLIENT_FILE):
            yield AccessKey(CLIENT, ("ask",) if client.startswith(_ASKS) else SCOPES, _sha256(client))

    def _valid(self) -> list[AccessKey]:
        """Return the keys that are let in: of a damaged file none."""
        try:
            return self.all()
        except InvalidParameter as error:
            _log.warning("the keys that were created are not let in: %s", error)
            return list(self._given())

    def _write(self, entries: Sequence[AccessKey]) -> None:
        text = json.dumps({"keys": [asdict(one) for one in entries]}, ensure_ascii=False, indent=1)
        write_private(self._folder / FILE, f"{text}\n")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time change the file."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(self._folder / f"{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
                lock_descriptor(lock.fileno())
                yield
        except OSError as error:
            raise InvalidParameter(
                f"cannot write {self._folder / FILE}: {error.strerror}; check its disk and permissions",
                parameter="config_folder",
            ) from error


def _read(file: Path) -> list[AccessKey]:
    """Return the keys that were created, the oldest first.

    Raises:
        InvalidParameter: if the file does not hold keys.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["keys"]
        return [AccessKey(**{**values, "scopes": tuple(values["scopes"])}) for values in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidParameter) as error:
        raise InvalidParameter(
            f"{file} does not contain keys; restore it from a backup, or delete it and create the keys again"
        ) from error


def _kept(file: Path, beginning: str) -> str:
    if not _text(file):
        write_private(file, f"{beginning}{secrets.token_urlsafe(24)}\n")
    return _text(file)


def _text(file: Path) -> str:
    """Return a kept key; "" where there is none."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"cannot read {file}: {error}; delete it, and a new key is made") from error


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
