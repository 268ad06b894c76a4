"""Databases of the agent: SQLite, encrypted at rest (SQLite3 Multiple Ciphers, ChaCha20-Poly1305 a page)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from user_agent.errors import StoreKeyWrong, StoreUnreadable
from user_agent.store.encryption_key import StoreKey

BUSY_TIMEOUT_MS = 10_000
_SMALLEST_PAGE_BYTES = 512
_CIPHER_SALT_BYTES = 16
_FRACTIONS = b"\x40\x20\x20"  # bytes 21 to 23 of every SQLite file; the cipher leaves them in plain text
_KEYS = {
    "passphrase": "check the passphrase, or unset it if the store was made without one",
    "keyring": "set the passphrase if the store was made with one, or restore the keyring's old key",
    "file": "set the passphrase if the store was made with one, or restore the old store.key",
}


def open_database(file: Path, key: StoreKey | None) -> apsw.Connection:
    """Open a database, made if missing, readable by its owner alone.

    The write-ahead log lets others read while one writes, and what is committed is whole after a crash. Both it and the
    database are encrypted, and what SQLite spills goes to memory. For one thread at a time.

    Args:
        file: the database.
        key: of the store; None for a database that is not encrypted.

    Raises:
        StoreKeyWrong: if it was encrypted with another key, or not at all.
        StoreUnreadable: if it is damaged, or cannot be read or written.
    """
    with reported(file):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        database = apsw.Connection(str(file))
        try:
            if key is not None:
                database.pragma("hexkey", key.secret.hex())
            _prepare(database)
        except apsw.NotADBError as error:
            database.close()
            raise _not_a_database(file, key) from error
        except apsw.Error:
            database.close()
            raise
    return database


def memory_database() -> apsw.Connection:
    """A database that is gone when it is closed."""
    database = apsw.Connection(":memory:")
    _prepare(database)
    return database


@contextmanager
def reported(file: Path) -> Iterator[None]:
    """Report what goes wrong with a database's file as an error that the user understands.

    Raises:
        StoreUnreadable: if the file is damaged, or cannot be read or written.
    """
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _damaged(file) from error
    except apsw.BusyError as error:
        raise StoreUnreadable(f"another program has been using {file} for too long; try again") from error
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, OSError) as error:
        raise StoreUnreadable(f"cannot use {file}: {error}; check the disk and who owns the file") from error


def _prepare(database: apsw.Connection) -> None:
    database.set_busy_timeout(BUSY_TIMEOUT_MS)
    database.pragma("temp_store", "memory")
    database.pragma("foreign_keys", True)
    database.pragma("journal_mode", "wal")  # reads the first page: where a wrong key shows
    database.pragma("synchronous", "normal")


def _not_a_database(file: Path, key: StoreKey | None) -> StoreKeyWrong | StoreUnreadable:
    """A wrong key and a damaged first page look the same to SQLite; the plain bytes of the header tell most apart."""
    with file.open("rb") as opened:
        header = opened.read(_SMALLEST_PAGE_BYTES)
    is_whole = len(header) == _SMALLEST_PAGE_BYTES and file.stat().st_size % _SMALLEST_PAGE_BYTES == 0
    if not is_whole or header[_CIPHER_SALT_BYTES + 5 : _CIPHER_SALT_BYTES + 8] != _FRACTIONS:
        return _damaged(file)
    how = _KEYS[key.source] if key else "open it with its key"
    return StoreKeyWrong(f"{file} was encrypted with another key; {how}", parameter="passphrase")


def _damaged(file: Path) -> StoreUnreadable:
    return StoreUnreadable(f"{file} is damaged; restore it from a backup, or move it away to start afresh")


@contextmanager
def writing(connection: apsw.Connection) -> Iterator[None]:
    """Write in one transaction; what it reads first stays so until its end.

    (A connection as context manager waits for another one's transaction without letting other threads run: if that one
    is of the same process, until the busy timeout is over.)
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
