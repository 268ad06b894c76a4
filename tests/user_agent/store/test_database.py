"""What is kept on the device: whose key opens it, and what is said when none does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import apsw
import pytest

from user_agent.errors import StoreKeyWrong, StoreUnreadable
from user_agent.store.database import open_database
from user_agent.store.encryption_key import StoreKey

RAW = StoreKey("file", b"raw:" + b"5a" * 32)
PASSPHRASE = StoreKey("passphrase", b"correct horse")
SENTINEL = "the spare key is in the blue drawer"


def _written(file: Path, key: StoreKey | None) -> None:
    database = open_database(file, key)
    database.execute("CREATE TABLE note (text)")
    database.executemany("INSERT INTO note VALUES (?)", [(f"{SENTINEL} {n}",) for n in range(2000)])
    database.close()


@pytest.mark.parametrize("key", [RAW, PASSPHRASE], ids=["raw", "passphrase"])
def test_nothing_that_is_kept_can_be_read_from_the_disk(tmp_path: Path, key: StoreKey) -> None:
    database = open_database(tmp_path / "notes.sqlite", key)
    database.execute("CREATE TABLE note (text); INSERT INTO note VALUES (?)", (SENTINEL,))
    on_disk = [file.read_bytes() for file in tmp_path.iterdir()]  # the write-ahead log is among them
    database.close()
    assert len(on_disk) == 3
    assert not any(SENTINEL.encode() in data for data in [*on_disk, (tmp_path / "notes.sqlite").read_bytes()])
    assert open_database(tmp_path / "notes.sqlite", key).execute("SELECT text FROM note").get == SENTINEL


@pytest.mark.parametrize(
    ("made_with", "opened_with", "says"),
    [
        (RAW, StoreKey("file", b"raw:" + b"00" * 32), "set the passphrase"),
        (PASSPHRASE, RAW, "made with one"),
        (PASSPHRASE, StoreKey("keyring", b"raw:" + b"00" * 32), "keyring"),
        (RAW, PASSPHRASE, "check the passphrase"),
        (None, RAW, "set the passphrase"),
        (RAW, None, "with its key"),
    ],
)
def test_another_key_is_refused_with_what_to_do(
    tmp_path: Path, made_with: StoreKey | None, opened_with: StoreKey | None, says: str
) -> None:
    _written(tmp_path / "notes.sqlite", made_with)
    with pytest.raises(StoreKeyWrong, match=says) as raised:
        open_database(tmp_path / "notes.sqlite", opened_with)
    assert raised.value.parameter == "passphrase"
    _reopened = open_database(tmp_path / "notes.sqlite", made_with)
    assert _reopened.execute("SELECT count(*) FROM note").get == 2000


@pytest.mark.parametrize("damaged", [b"x" * 8192, b"SQLite format 3\0", os.urandom(4096)[:1000]])
def test_a_damaged_file_is_told_from_a_wrong_key(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "notes.sqlite").write_bytes(damaged)
    with pytest.raises(StoreUnreadable, match=r"notes\.sqlite is damaged"):
        open_database(tmp_path / "notes.sqlite", RAW)


def test_only_its_owner_can_read_a_database(tmp_path: Path) -> None:
    _written(tmp_path / "notes.sqlite", RAW)
    assert stat.S_IMODE((tmp_path / "notes.sqlite").stat().st_mode) == 0o600


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreadable, match="missing"):
        open_database(tmp_path / "missing" / "notes.sqlite", RAW)


def test_a_key_is_not_printed() -> None:
    assert "horse" not in repr(PASSPHRASE)


def test_rows_that_refer_to_nothing_are_refused(tmp_path: Path) -> None:
    database = open_database(tmp_path / "notes.sqlite", RAW)
    database.execute("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a)")
    with pytest.raises(apsw.ConstraintError):
        database.execute("INSERT INTO b VALUES (7)")
