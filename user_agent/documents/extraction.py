"""Reading files in a process of its own, which a hostile file may end: the next file gets a new one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO

from user_agent.documents.confinement import was_too_slow
from user_agent.documents.formats.section import Section
from user_agent.documents.frames import receive, send
from user_agent.documents.visible import visible
from user_agent.errors import DocumentsUnreadable

LONGEST_WAIT_S = 30.0
"""Enough for a child's start on a busy machine, and for its own 10 s a file, which one that was taken over may lift."""

NO_TEXT = {
    ".pdf": "contains no text: its pages are pictures, as those of a scan are; run OCR over it and save it with text"
}
"""Why a file that can be read holds no passage, for the formats where that has a remedy."""

_FAULTS = (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError)
_WORKER = [sys.executable, "-P", "-m", "user_agent.documents.extraction_worker"]


def exposure_warning(why: str) -> str:
    """Say what it means that files are read on the network.

    Args:
        why: what `Extractor.exposure` gave.
    """
    remedy = (
        ", or allow this program to create user namespaces (in a container by its seccomp profile, elsewhere by sysctl "
        "user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns)"
    )
    return (
        f"files are read without isolation from the network on this machine ({why}): a damaged or hostile file that "
        "takes over its reader could send what your account can read. Add only files that you trust"
        f"{remedy if sys.platform == 'linux' else ''}"
    )


# See docs/decisions/021-documents-are-kept-encrypted.md.
class Extractor:
    """Reads files in a child process that is kept between them. For any number of threads, one file at a time.

    The child bounds itself (`confinement`): 10 s a file, 500 MB, no network where the system allows that. It can read
    what this user can, and start programs, on Windows none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_greeted = False
        self._exposure: str | None = None  # as a child says it before it reads any file

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def exposure(self) -> str:
        """Say why files are read on the network; empty if they are not. Starts the child if there is none."""
        if self._exposure is not None:
            return self._exposure  # and does not wait for a file that is being read
        with self._lock:
            process = self._running()
            try:
                with _bounded(process):
                    return self._greeted(process)
            except _FAULTS:
                self._end(process)
                return "the process that reads them does not start"

    def extract(self, data: bytes, suffix: str) -> list[Section]:
        """The text of a file in pieces for searching, in its order.

        Args:
            data: of the file.
            suffix: one of `formats.SUFFIXES`.

        Raises:
            DocumentsUnreadable: if it cannot be read; the text is a reason, without the file's name.
        """
        with self._lock:
            process = self._running()
            try:
                with _bounded(process):
                    self._greeted(process)
                with _bounded(process):
                    reply = self._asked(process, data, suffix)
                pieces = _understood(reply)
            except _FAULTS:
                raise DocumentsUnreadable(self._end(process)) from None
            except KeyboardInterrupt:
                self._end(process)  # its reply to this file must not be taken for that to the next
                raise
        if not pieces:
            raise DocumentsUnreadable(NO_TEXT.get(suffix, "contains no text"))
        return pieces

    def close(self) -> None:
        """End the child; a file that is being read fails, a later one starts another."""
        process = self._process
        if process is not None:
            process.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._is_greeted = False
            # Without SLINGSHOT_PASSPHRASE. In a session of its own: Ctrl-C is for the parent, which says what was done.
            self._process = subprocess.Popen(  # noqa: S603  our own module
                _WORKER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if not name.startswith("SLINGSHOT_")},
                start_new_session=True,
            )
        return self._process

    def _greeted(self, process: subprocess.Popen[bytes]) -> str:
        """Read the child's first frame, once; no file can have taken the child over before it."""
        if self._exposure is None or not self._is_greeted:
            self._exposure = _text(json.loads(receive(_pipes(process)[1]))["exposure"])
            self._is_greeted = True
        return self._exposure

    @staticmethod
    def _asked(process: subprocess.Popen[bytes], data: bytes, suffix: str) -> bytes:
        requests, replies = _pipes(process)
        send(requests, suffix.encode())
        send(requests, data)
        return receive(replies)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> str:
        """End the child; return why it ended, told of the file that it read."""
        process.kill()  # one that writes no frames may still run
        code = _closed(process)
        if was_too_slow(code):
            return "takes more than 10 s to read; split it"
        return f"crashes its reader ({_named(code)}): it is damaged, or its name has the wrong extension; save it again"


@contextmanager
def _bounded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the child if it says nothing for `LONGEST_WAIT_S`, so that who reads from it sees its end."""
    timer = threading.Timer(LONGEST_WAIT_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    if process.stdin is None or process.stdout is None:
        raise EOFError("the child was started without pipes")
    return process.stdin, process.stdout  # type: ignore[return-value]  # IO[bytes] there


def _understood(frame: bytes) -> list[Section]:
    """The pieces of a reply; of what wrote it nothing is taken on trust, as a hostile file may have taken it over.

    Raises:
        DocumentsUnreadable: with the reason, if that is the reply.
        ValueError, KeyError, TypeError, RecursionError: if it is no reply.
    """
    reply = json.loads(frame)
    if "reason" in reply:
        raise DocumentsUnreadable(_text(reply["reason"]))
    return [_piece(*values) for values in reply["pieces"]]


def _piece(text: object, line: object, page: object, heading: object, sheet: object, slide: object) -> Section:
    return Section(_text(text), _number(line), _number(page), _text(heading), _text(sheet), _number(slide))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return visible(value)


def _number(value: object) -> int | None:
    if not (value is None or (isinstance(value, int) and 0 < value < 2**31)):
        raise TypeError("no number of a line, page or slide")
    return value


def _closed(process: subprocess.Popen[bytes]) -> int:
    with suppress(OSError):  # what was on its way to the child is lost
        process.communicate()
    return process.wait()


def _named(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
