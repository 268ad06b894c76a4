"""Files of the user's: which ones there are to read, and their bytes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from user_agent.documents.formats import SUFFIXES
from user_agent.errors import DocumentsUnreadable
from user_agent.store.printable import REPLACEMENT

MAX_FILE_BYTES = 20 * 1024 * 1024

if sys.platform == "win32":  # which has no pipes among files, and whose users may make no links
    _AS_FOUND = os.O_RDONLY | os.O_BINARY
else:  # not through a link put in its place since, and not held up by a pipe put there
    _AS_FOUND = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class FoundFile:
    """A file, or a folder that is not entered.

    Attributes:
        path: where.
        size_bytes: of it.
        modified_ns: when it was changed last.
        skipped: why it is not read; empty if it is.
        is_shut: a folder that cannot be entered: what is known to be in it may still be there.
    """

    path: Path
    size_bytes: int
    modified_ns: int
    skipped: str = ""
    is_shut: bool = False


def find_files(path: Path) -> list[FoundFile]:
    """Everything at a path, in order: the file itself, or what is below the folder.

    No symbolic link below it is followed: a link may lead out of the folder that was meant.

    Raises:
        OSError: if there is nothing, or it cannot be read.
    """
    if stat.S_ISDIR(path.stat().st_mode):
        return sorted(_below(path), key=lambda found: found.path)
    status = path.stat()
    return [FoundFile(path, status.st_size, status.st_mtime_ns, _why_no_document(path, status.st_mode))]


def read_file(file: FoundFile) -> bytes:
    """The bytes of a file, which still has to be the file that was found.

    Raises:
        DocumentsUnreadable: if it is too large; the text is a reason, without the file's name.
        OSError: if it cannot be read.
    """
    with open(os.open(file.path, _AS_FOUND), "rb") as opened:
        check_size(os.fstat(opened.fileno()).st_size)
        return opened.read(MAX_FILE_BYTES)


def check_size(size_bytes: int) -> None:
    """Refuse what is too large before it is read.

    Raises:
        DocumentsUnreadable: if it is; the text is a reason, without the file's name.
    """
    if size_bytes > MAX_FILE_BYTES:
        raise DocumentsUnreadable(f"has {size_bytes:,} bytes, more than {MAX_FILE_BYTES:,}; split it")


def _below(folder: Path) -> Iterator[FoundFile]:
    for entry in os.scandir(folder):
        path, status = Path(entry.path), entry.stat(follow_symlinks=False)
        if not str(path).isprintable():
            shown = "".join(c if c.isprintable() else REPLACEMENT for c in str(path))
            yield FoundFile(Path(shown), 0, 0, "has a name that is not UTF-8, or with control characters; rename it")
            continue
        found = FoundFile(path, status.st_size, status.st_mtime_ns, _why_skipped(path, status.st_mode))
        if found.skipped or not stat.S_ISDIR(status.st_mode):
            yield found
            continue
        try:
            yield from list(_below(path))
        except OSError as error:
            yield FoundFile(path, 0, 0, f"cannot be opened: {error.strerror}", is_shut=True)


def _why_skipped(path: Path, mode: int) -> str:
    if path.name.startswith("."):
        return "is hidden"
    if stat.S_ISLNK(mode):
        return "is a symbolic link; link its target"
    return "" if stat.S_ISDIR(mode) else _why_no_document(path, mode)


def _why_no_document(path: Path, mode: int) -> str:
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if path.suffix.lower() not in SUFFIXES:
        return f"has an unsupported format: {path.suffix or 'no suffix'}"
    return ""
