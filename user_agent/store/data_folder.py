"""The folder of what the agent keeps, for one agent at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import lock_descriptor

from user_agent.errors import StoreInUse, StoreUnreadable

LOCK_FILE = "lock"


def default_data_folder() -> Path:
    """$XDG_DATA_HOME/slingshot, else ~/.local/share/slingshot; on Windows in %LOCALAPPDATA%."""
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local/share") / "slingshot"


def make_data_folder(folder: Path) -> None:
    """Make the folder if it is missing, for nobody but its owner to enter; one that is there stays as it is.

    Raises:
        StoreUnreadable: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreUnreadable(
            f"cannot use the data folder {folder}: {error}; choose another folder", parameter="data_dir"
        ) from error


@contextmanager
def held_data_folder(folder: Path, url: str = "") -> Iterator[None]:
    """Hold the folder, made if missing; whatever ends the process lets go of it.

    Args:
        folder: the data folder.
        url: where this agent answers, told to whoever finds the folder in use; empty for a command.

    Raises:
        StoreInUse: if another process holds it; says which, and where it answers.
        StoreUnreadable: if the folder cannot be made or written.
    """
    make_data_folder(folder)
    with _open(folder / LOCK_FILE) as lock:
        if not lock_descriptor(lock.fileno(), blocking=False):
            raise StoreInUse(f"the data folder {folder} is in use by {_holder(lock)}")
        _sign(folder / LOCK_FILE, lock, url)
        yield


def holder_url(folder: Path) -> str:
    """Return where the agent answers that held the folder last, or holds it; "" if a command did, or nobody."""
    try:
        with open(folder / LOCK_FILE, encoding="utf-8") as lock:
            return str(_signed(lock)["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _open(file: Path) -> TextIO:
    try:
        return open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(file, error) from error


def _sign(file: Path, lock: TextIO, url: str) -> None:
    """Say who holds the lock; past the buffer, which would be written once more on closing."""
    try:
        os.ftruncate(lock.fileno(), 0)
        os.lseek(lock.fileno(), 0, os.SEEK_SET)
        os.write(lock.fileno(), f" {json.dumps({'pid': os.getpid(), 'url': url})}".encode())
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> StoreUnreadable:
    return StoreUnreadable(
        f"cannot write {file}: {error}; free space on its disk, or choose another data folder", parameter="data_dir"
    )


def _holder(lock: TextIO) -> str:
    try:
        holder = _signed(lock)
        if holder["url"]:
            return f"the agent at {holder['url']} (process {holder['pid']}); use that one, or stop it"
        return f"process {holder['pid']}; wait until it is done, or stop it"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just started; try again"


def _signed(lock: TextIO) -> dict[str, Any]:
    """Return what the holder has written, but for its first byte: that is locked, and Windows lets nobody read it."""
    lock.seek(1)
    return dict(json.load(lock))
