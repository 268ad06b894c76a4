"""A hostile file ends as a reason, and the next file is read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_agent.documents import made
from user_agent.documents import extraction
from user_agent.documents.confinement import MEMORY_LIMIT_BYTES, TIME_LIMIT_S
from user_agent.documents.extraction import Extractor
from user_agent.documents.formats import SUFFIXES
from user_agent.errors import DocumentsUnreadable

DEEP_GREETING = "(200_000).to_bytes(4, 'big') + b'[' * 200_000"
LIMITED = "from user_agent.documents.confinement import confine; confine()\n"


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    with Extractor() as extractor:
        yield extractor


def _child(extractor: Extractor) -> int:
    assert extractor._process is not None
    return extractor._process.pid


def _reads_on(extractor: Extractor) -> bool:
    return [piece.text for piece in extractor.extract(b"The key is here.", ".txt")] == ["The key is here."]


def _read_for_ever(extractor: Extractor) -> None:
    while True:
        extractor.extract(b"word " * 3_000_000, ".txt")


def _limited(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LIMITED + code], capture_output=True, text=True, timeout=60)


def test_one_process_reads_many_files(extractor: Extractor) -> None:
    assert extractor.extract(made.pdf("Hello."), ".pdf")[0].page == 1
    first = _child(extractor)
    assert extractor.extract(made.word("Hello."), ".docx")[0].text == "Hello."
    assert _child(extractor) == first


@pytest.mark.parametrize(
    ("data", "suffix", "says"),
    [
        pytest.param(made.pdf("Hello.")[:-60], ".pdf", "truncated", id="truncated-pdf"),
        pytest.param(made.zip_bomb(), ".docx", "unpack", id="zip-bomb"),
        pytest.param(made.lying_zip_bomb(), ".docx", "more than 500 MB of memory", id="lying-zip-bomb"),
        pytest.param(os.urandom(100_000), ".md", "binary", id="binary-as-markdown"),
        pytest.param(b"<div>" * 3_000_000, ".html", "10 s|memory", id="deep-html", marks=pytest.mark.slow),
        pytest.param(b"[1," * 5_000_000, ".json", "nested|no JSON|memory", id="deep-json"),
        pytest.param(made.pdf(""), ".pdf", "scan", id="pdf-without-text"),
    ],
)
def test_a_broken_or_hostile_file_ends_as_a_reason_in_bounds(
    extractor: Extractor, data: bytes, suffix: str, says: str
) -> None:
    started = time.monotonic()
    with pytest.raises(DocumentsUnreadable, match=says):
        extractor.extract(data, suffix)
    assert time.monotonic() - started < TIME_LIMIT_S + 5  # the limit, and a busy machine's start of a process
    assert _reads_on(extractor)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_not_counted_as_read(extractor: Extractor, suffix: str) -> None:
    with pytest.raises(DocumentsUnreadable):
        extractor.extract(b"", suffix)


def test_a_file_that_takes_too_long_ends_its_reader_and_the_next_one_is_read(
    extractor: Extractor,
) -> None:
    assert _reads_on(extractor)
    first = _child(extractor)
    threading.Timer(0.5, os.kill, (first, signal.SIGALRM)).start()  # what its own timer sends at 10 s
    with pytest.raises(DocumentsUnreadable, match="more than 10 s"):
        _read_for_ever(extractor)
    assert _reads_on(extractor)
    assert _child(extractor) != first


def test_the_timer_of_a_file_ends_a_process_that_never_comes_back() -> None:
    code = (
        "import signal; from user_agent.documents import extraction_worker as worker\n"
        "worker.TIME_LIMIT_S = 0.2; worker.read = lambda data, suffix: [None for _ in iter(int, 1)]\n"
        "worker.main()"
    )
    frames = (4).to_bytes(4, "big") + b".txt" + (1).to_bytes(4, "big") + b"x"
    done = subprocess.run([sys.executable, "-c", code], input=frames, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_reader_that_dies_fails_its_file_and_no_other(extractor: Extractor, number: int) -> None:
    assert _reads_on(extractor)
    threading.Timer(0.5, os.kill, (_child(extractor), number)).start()
    with pytest.raises(DocumentsUnreadable, match=signal.Signals(number).name):
        _read_for_ever(extractor)
    assert _reads_on(extractor)


def test_a_reader_that_died_between_files_costs_none(extractor: Extractor) -> None:
    assert _reads_on(extractor)
    os.kill(_child(extractor), signal.SIGKILL)
    time.sleep(0.2)
    assert _reads_on(extractor)


def test_an_interrupted_reply_is_not_taken_for_that_to_the_next_file(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(pipe: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(extraction, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extractor.extract(b"Another text.", ".txt")
    assert _reads_on(extractor)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{}",
        b'{"pieces": [[1, 2, 3]]}',
        b'{"pieces": [["x", "1", null]]}',
        b'{"reason": 7}',
        b"[" * 200_000,
    ],
    ids=lambda reply: str(reply[:40]),
)
def test_a_reader_that_was_taken_over_breaks_nothing(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "receive", lambda pipe: reply)
        with pytest.raises(DocumentsUnreadable):
            extractor.extract(b"A text.", ".txt")
    assert _reads_on(extractor)


def test_text_that_is_not_unicode_can_be_kept(extractor: Extractor) -> None:
    assert extractor.extract(b'{"a": "x\\ud800y"}', ".json")[0].text == "a: x?y"


def test_what_reads_files_has_no_more_memory_than_it_is_given() -> None:
    assert _limited(f"bytearray({MEMORY_LIMIT_BYTES // 4})").returncode == 0
    assert "MemoryError" in _limited(f"bytearray({MEMORY_LIMIT_BYTES})").stderr


def test_what_reads_files_writes_none(tmp_path: Path) -> None:
    done = _limited(f"open({str(tmp_path / 'x')!r}, 'wb', 0).write(b'leak')")
    assert "File too large" in done.stderr
    assert (tmp_path / "x").read_bytes() == b""


def test_what_reads_files_is_off_the_network(extractor: Extractor) -> None:
    """Unix sockets are left to it; files that it could reach by them belong to the user already."""
    refused = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x50000000) != 0)"
    if subprocess.run([sys.executable, "-c", refused]).returncode:
        pytest.skip("this system lets no process leave its network")
    assert _reads_on(extractor)
    assert os.readlink(f"/proc/{_child(extractor)}/ns/net") != os.readlink("/proc/self/ns/net")
    done = _limited("import socket; socket.create_connection(('127.0.0.1', 9), 1)")
    assert "unreachable" in done.stderr


def test_a_reader_that_cannot_leave_the_network_says_why(extractor: Extractor, refused_namespaces: None) -> None:
    assert "Invalid argument" in extractor.exposure()
    assert _reads_on(extractor)
    os.kill(_child(extractor), signal.SIGKILL)
    time.sleep(0.2)
    assert _reads_on(extractor), "the next one says it too, and that is no reply to a file"


def test_what_is_said_of_the_network_is_what_holds(extractor: Extractor) -> None:
    exposure = extractor.exposure()
    is_off = os.readlink(f"/proc/{_child(extractor)}/ns/net") != os.readlink("/proc/self/ns/net")
    assert (exposure == "") == is_off


@pytest.mark.parametrize("says", ["b''", DEEP_GREETING], ids=["nothing", "nonsense"])
def test_a_reader_that_greets_with_nothing_is_ended(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    code = f"import sys, time; sys.stdout.buffer.write({says}); sys.stdout.flush(); time.sleep(60)"
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "_WORKER", [sys.executable, "-c", code])
        patched.setattr(extraction, "LONGEST_WAIT_S", 0.5)
        with pytest.raises(DocumentsUnreadable):
            extractor.extract(b"A text.", ".txt")
        assert "does not start" in extractor.exposure()
    assert _reads_on(extractor)


def test_a_reader_that_was_taken_over_and_never_replies_is_ended(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys, time; from user_agent.documents.frames import send\n"
        'send(sys.stdout.buffer, b\'{"exposure": ""}\'); time.sleep(60)'
    )
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "_WORKER", [sys.executable, "-c", code])
        patched.setattr(extraction, "LONGEST_WAIT_S", 3.0)  # long enough for the greeting
        with pytest.raises(DocumentsUnreadable, match="SIGKILL"):
            extractor.extract(b"A text.", ".txt")
    assert _reads_on(extractor)


def test_a_reader_that_does_not_start_is_no_isolated_one(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(extraction, "_WORKER", [sys.executable, "-c", ""])
        assert "does not start" in extractor.exposure()
    assert "does not start" not in extractor.exposure()


def test_what_reads_files_is_not_given_the_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLINGSHOT_PASSPHRASE", "correct horse")
    with Extractor() as extractor:
        assert _reads_on(extractor)
        assert b"correct horse" not in Path(f"/proc/{_child(extractor)}/environ").read_bytes()


def test_what_reads_files_loads_neither_torch_nor_the_line_to_the_core() -> None:
    code = (
        "import sys, user_agent.documents.extraction_worker as worker\n"
        "from user_agent.documents.formats import SUFFIXES\n"
        "for suffix in SUFFIXES: worker.read(b'', suffix)\n"
        "print(sorted({'torch', 'grpc', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_reader_ends_with_the_agent() -> None:
    code = (
        "import os, signal\nfrom user_agent.documents.extraction import Extractor\n"
        "extractor = Extractor(); extractor.extract(b'Hello.', '.txt'); print(extractor._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60)
    deadline = time.monotonic() + 20
    while _is_running(int(done.stdout)):
        assert time.monotonic() < deadline, "the reader is still there"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
