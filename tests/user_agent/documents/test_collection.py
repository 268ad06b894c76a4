"""Links, uploads, syncs and searches, over real files and a real store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssd2.errors import InvalidParameter
from tests.user_agent.documents import made
from user_agent.documents import watcher
from user_agent.documents.collection import FILE, Collection
from user_agent.documents.extraction import Extractor
from user_agent.documents.files import MAX_FILE_BYTES
from user_agent.documents.formats import READER_VERSION
from user_agent.documents.formats.section import Section
from user_agent.documents.passage import NothingFound
from user_agent.documents.sync import MOST_TRIES, Progress
from user_agent.errors import DocumentsUnreadable, StoreKeyWrong, StoreUnreadable
from user_agent.store.database import open_database
from user_agent.store.encryption_key import StoreKey

KEY = StoreKey("file", b"raw:" + b"5a" * 32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "home.md").write_text("# Home\n\nThe spare key is in the blue drawer.\n")
    (folder / "sub" / "letter.pdf").write_bytes(made.pdf("Dear Ada.", "The contract ends in May."))
    return folder


@pytest.fixture
def library(data: Path) -> Iterator[Collection]:
    library = Collection(data, KEY)
    yield library
    library.close()


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was read, file by file."""
    seen: list[bytes] = []
    extract = Extractor.extract

    def spy(self: Extractor, data: bytes, suffix: str) -> list[Section]:
        seen.append(data)
        return extract(self, data, suffix)

    monkeypatch.setattr(Extractor, "extract", spy)
    return seen


def _states(library: Collection) -> dict[str, tuple[str, str]]:
    return {document.path.name: (document.state, document.reason) for document in library.documents()}


def _sync(library: Collection, path: Path) -> Progress:
    library.link(path)
    return library.sync()


def test_what_is_linked_can_be_found_with_its_page_and_line(library: Collection, notes: Path) -> None:
    _sync(library, notes)
    (found,) = library.search("When does my contract end?")
    assert (found.text, found.source, found.page) == ("The contract ends in May.", notes / "sub" / "letter.pdf", 2)
    (found,) = library.search("Where is the spare key?")
    assert (found.place, found.line) == ("home.md:3", 3)


@pytest.mark.parametrize("path", ["a" * 5000, "notes\0", "~nobody-of-that-name/notes"])
def test_what_can_be_no_path_is_refused(library: Collection, path: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot open"):
        library.link(Path(path))


def test_what_is_kept_is_there_after_a_restart_and_encrypted(data: Path, notes: Path) -> None:
    first = Collection(data, KEY)
    _sync(first, notes)
    first.add(b"My plumber is Ada Stone.", "plumber.txt")
    first.close()
    kept = b"".join(file.read_bytes() for file in data.iterdir())
    assert not any(text in kept for text in (b"drawer", b"plumber", b"home.md", b"contract"))
    second = Collection(data, KEY)
    assert second.search("plumber")[0].text == "My plumber is Ada Stone."
    assert len(second.documents()) == 3
    second.close()
    with pytest.raises(StoreKeyWrong):
        Collection(data, StoreKey("passphrase", b"guess"))


def test_nothing_in_a_folder_is_left_out_in_silence(library: Collection, notes: Path) -> None:
    (notes / "photo.png").write_bytes(b"\x89PNG")
    (notes / ".git").mkdir()
    (notes / ".git" / "config.txt").write_text("hidden")
    (notes / "fake.md").write_bytes(b"\x00\x01")
    (notes / "Makefile").write_text("all:")
    (notes / "big.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    os.mkfifo(notes / "pipe.txt")
    progress = _sync(library, notes)
    states = _states(library)
    assert {name: state for name, (state, _) in states.items()} == {
        "home.md": "indexed",
        "letter.pdf": "indexed",
        "photo.png": "skipped",
        ".git": "skipped",
        "Makefile": "skipped",
        "pipe.txt": "skipped",
        "fake.md": "failed",
        "big.txt": "failed",
    }
    assert all(reason for state, reason in states.values() if state != "indexed")
    assert (progress.total, progress.done, progress.indexed, progress.failed, progress.skipped) == (8, 8, 2, 2, 4)


def test_no_symbolic_link_leads_out_of_the_folder(library: Collection, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary.txt").write_text("Nobody is to read this.")
    (notes / "diary.txt").symlink_to(tmp_path / "secret" / "diary.txt")
    (notes / "folder").symlink_to(tmp_path / "secret")
    (notes / "loop").symlink_to(notes)
    _sync(library, notes)
    assert library.search("nobody") == []
    skipped = {name: reason for name, (state, reason) in _states(library).items() if state == "skipped"}
    assert set(skipped) == {"diary.txt", "folder", "loop"}
    assert all("symbolic link" in reason for reason in skipped.values())


def test_a_file_swapped_for_a_symbolic_link_after_the_scan_is_not_followed(
    library: Collection, notes: Path, tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("Nobody is to read this.")
    library.link(notes)

    def swap(progress: Progress) -> None:
        if progress.current == "home.md":
            (notes / "home.md").unlink()
            (notes / "home.md").symlink_to(tmp_path / "diary.txt")

    library.sync(swap)
    assert _states(library)["home.md"][0] == "failed"
    assert library.search("nobody") == []


def test_what_is_unchanged_is_not_read_again(library: Collection, notes: Path, extracted: list[bytes]) -> None:
    (notes / "fake.md").write_bytes(b"\x00\x01")
    _sync(library, notes)
    assert len(extracted) == 3
    assert library.sync().unchanged == 3
    os.utime(notes / "home.md", ns=(1, 1))  # copied back from a backup: another time, the same bytes
    assert library.sync().unchanged == 3
    assert len(extracted) == 3
    (notes / "home.md").write_text("The spare key is in the red drawer.\n")
    progress = library.sync()
    assert (progress.indexed, progress.unchanged, len(extracted)) == (1, 2, 4)
    assert [passage.text for passage in library.search("drawer")] == ["The spare key is in the red drawer."]
    assert library.sync(retry_failed=True).failed == 1


VERSION_2 = """
DROP INDEX document_of_bytes; DROP TRIGGER passage_removed; DROP TABLE word; DROP TABLE part; DROP TABLE vector;
ALTER TABLE passage DROP COLUMN heading; ALTER TABLE passage DROP COLUMN sheet;
ALTER TABLE passage DROP COLUMN slide; ALTER TABLE passage DROP COLUMN name;
CREATE VIRTUAL TABLE word USING fts5 (text, content = 'passage', content_rowid = 'id', tokenize = 'porter unicode61');
INSERT INTO word (rowid, text) SELECT id, text FROM passage;
CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO word (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO word (word, rowid, text) VALUES ('delete', old.id, old.text);
END;
PRAGMA user_version = 2;
"""


def test_passages_of_a_store_of_version_2_are_found_and_get_their_headings(data: Path, tmp_path: Path) -> None:
    (tmp_path / "home.md").write_text("# Shed\n\nThe code is 4711.\n")
    first = Collection(data, KEY)
    _sync(first, tmp_path / "home.md")
    first.close()
    database = open_database(data / FILE, KEY)
    database.execute(VERSION_2)
    database.execute("UPDATE document SET reader_version = 3")
    database.close()
    library = Collection(data, KEY)
    assert [passage.told for passage in library.search("code")] == ["The code is 4711."]
    library.sync()
    assert [passage.told for passage in library.search("shed")] == ["Shed: The code is 4711."]
    library.close()


def test_headings_and_the_names_of_files_are_searched(library: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "2026-DentistInvoice_june.txt").write_text("It was 80 EUR.\n\nPaid in cash.\n")
    (folder / "house.md").write_text("# Larch Cottage\n## Cellar\nThe lamp is broken.\n\nBring a bulb.\n")
    _sync(library, folder)
    assert {one.text for one in library.search("Which dentist?")} == {"It was 80 EUR.", "Paid in cash."}
    found = library.search("larch")
    assert {one.text for one in found} == {"The lamp is broken.", "Bring a bulb."}
    assert {one.heading for one in found} == {"Larch Cottage: Cellar"}
    assert library.search("lamp")[0].told == "Larch Cottage: Cellar: The lamp is broken."


def test_a_file_that_is_there_twice_is_told_once(library: Collection, tmp_path: Path) -> None:
    text = "My plumber is Ada Stone.\n\nMy plumber is Ada Stone.\n"
    folder = tmp_path / "twice"
    folder.mkdir()
    for name in ("a.txt", "copy of a.txt"):
        (folder / name).write_text(text)
    (folder / "other.txt").write_text("My plumber is Ada Stone.\nCall her.\n")
    uploaded = library.add(text.encode(), "up.txt")
    _sync(library, folder)
    places = [one.place for one in library.search("plumber")]
    assert sorted(places) == ["other.txt:1", "up.txt:1", "up.txt:3"]
    assert len(library.passages()) == 4
    copies = {one.path.name: one.copy_of for one in library.documents()}
    assert (copies["up.txt"], copies["a.txt"], copies["other.txt"]) == (None, Path("up.txt"), None)
    linked = next(one.id for one in library.documents() if one.path.name == "a.txt")
    assert [one.place for one in library.search("plumber", [linked])] == ["a.txt:1", "a.txt:3"]
    library.remove(uploaded.id)
    assert len({one.place for one in library.search("plumber")}) == 3


def _make_it_a_store_of_the_first_version(file: Path) -> None:
    """With the documents, and without what was read of them."""
    database = open_database(file, KEY)
    database.execute("DELETE FROM passage")
    database.execute(VERSION_2)
    database.execute("ALTER TABLE document DROP COLUMN reader_version; PRAGMA user_version = 1")
    database.close()


def test_what_an_older_reader_has_read_is_read_again_once(data: Path, notes: Path, extracted: list[bytes]) -> None:
    first = Collection(data, KEY)
    _sync(first, notes)
    upload = first.add(b"My bike is in the drawer.", "bike.txt")
    first.close()
    _make_it_a_store_of_the_first_version(data / FILE)
    extracted.clear()
    library = Collection(data, KEY)
    assert library.search("drawer") == []
    progress = library.sync()
    assert (progress.total, progress.indexed, len(extracted)) == (3, 3, 3)
    assert {passage.source.name for passage in library.search("drawer")} == {"home.md", "bike.txt"}
    assert [document.id for document in library.documents() if document.link_id is None] == [upload.id]
    assert library.sync().unchanged == 2
    assert len(extracted) == 3
    library.close()


def _fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Extractor, data: bytes, suffix: str) -> list[Section]:
        raise DocumentsUnreadable("takes more than 10 s to read; split it")

    monkeypatch.setattr(Extractor, "extract", fail)


def test_what_cannot_be_read_anew_stays_as_it_was_and_is_tried_again(
    library: Collection, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sync(library, notes / "home.md")
    upload = library.add(b"My bike is in the drawer.", "bike.txt")
    monkeypatch.setattr("user_agent.documents.store.READER_VERSION", READER_VERSION + 1)
    with monkeypatch.context() as patched:
        _fail(patched)
        assert library.sync().failed == 2
        assert len(library.search("drawer")) == 2
        assert all("takes more than 10 s" in reason for _, reason in _states(library).values())
    assert library.sync().indexed == 2
    assert set(_states(library).values()) == {("indexed", "")}
    assert library.original(upload.id) == b"My bike is in the drawer."


def test_what_can_never_be_read_anew_is_not_tried_at_every_sync(
    library: Collection, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sync(library, notes / "home.md")
    library.add(b"My bike is in the drawer.", "bike.txt")
    monkeypatch.setattr("user_agent.documents.store.READER_VERSION", READER_VERSION + 1)
    with monkeypatch.context() as patched:
        _fail(patched)
        assert [library.sync().failed for _ in range(MOST_TRIES + 1)] == [2] * MOST_TRIES + [0]
    assert library.sync(retry_failed=True).indexed == 2


@pytest.mark.parametrize("is_outdated", [False, True])
def test_a_failed_upload_is_read_again_when_asked(
    library: Collection, monkeypatch: pytest.MonkeyPatch, is_outdated: bool
) -> None:
    with monkeypatch.context() as patched:
        _fail(patched)
        first, second = (library.add(data, "bike.txt") for data in (b"My bike is here.", b"My key is here."))
        if is_outdated:
            monkeypatch.setattr("user_agent.documents.store.READER_VERSION", READER_VERSION + 1)
            assert library.sync().failed == 2
        assert (first.state, library.sync().total) == ("failed", 0)
    again = library.add(b"My bike is here.", "other.txt")
    assert (again.id, again.state, again.reason, again.passages) == (first.id, "indexed", "", 1)
    assert library.sync(retry_failed=True).indexed == 1
    assert [document.id for document in library.documents()] == [first.id, second.id]
    assert len(library.search("key")) == 1


def test_what_is_deleted_can_no_longer_be_found(library: Collection, notes: Path) -> None:
    _sync(library, notes)
    (notes / "home.md").unlink()
    assert library.sync().removed == 1
    assert library.search("drawer") == []
    assert list(_states(library)) == ["letter.pdf"]


def test_a_disk_that_is_not_there_loses_no_document(library: Collection, notes: Path, tmp_path: Path) -> None:
    _sync(library, notes)
    notes.rename(tmp_path / "elsewhere")
    progress = library.sync()
    assert str(notes) in progress.problems[0]
    assert len(library.search("drawer")) == 1


def test_a_folder_that_cannot_be_entered_loses_no_document(
    library: Collection, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sync(library, notes)
    scandir = os.scandir

    def shut(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", shut)
    assert library.sync().removed == 0
    assert "Permission denied" in _states(library)["sub"][1]
    assert len(library.search("contract")) == 1


def test_a_linked_file_that_is_deleted_is_gone(library: Collection, notes: Path) -> None:
    _sync(library, notes / "home.md")
    (notes / "home.md").unlink()
    assert library.sync().removed == 1
    assert library.documents() == []


def test_a_file_that_may_not_be_read_is_tried_again(
    library: Collection, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("user_agent.documents.sync.read_file", refuse)
        assert _sync(library, notes).failed == 2
    assert _states(library)["home.md"] == ("failed", "cannot be read: Permission denied")
    assert library.sync().indexed == 2


def test_unlinking_forgets_the_documents_and_leaves_the_files(library: Collection, notes: Path) -> None:
    _sync(library, notes)
    (link,) = library.links()
    assert (link.path, link.documents) == (notes, 2)
    library.unlink(link.id)
    assert (library.links(), library.documents(), library.search("drawer")) == ([], [], [])
    assert (notes / "home.md").exists()
    with pytest.raises(InvalidParameter, match="no link"):
        library.unlink(link.id)


def test_a_link_removed_while_it_is_read_leaves_nothing(library: Collection, notes: Path) -> None:
    link = library.link(notes)
    library.sync(lambda progress: library.unlink(link.id) if progress.current == "home.md" else None)
    assert library.documents() == []


def test_links_do_not_overlap(library: Collection, notes: Path) -> None:
    link = library.link(notes / "sub")
    assert library.link(notes / "sub" / ".." / "sub") == link
    for overlapping in (notes, notes / "sub" / "letter.pdf"):
        with pytest.raises(InvalidParameter, match="overlap"):
            library.link(overlapping)


@pytest.mark.parametrize("name", ["missing", "photo.png"])
def test_only_folders_and_documents_can_be_linked(library: Collection, notes: Path, name: str) -> None:
    (notes / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(DocumentsUnreadable, match=name):
        library.link(notes / name)


def test_a_name_that_is_not_utf8_is_told_and_stops_nothing(library: Collection, notes: Path) -> None:
    (notes / os.fsdecode(b"caf\xe9.txt")).write_text("Not for reading.")
    (notes / "evil\x1b[2J.txt").write_text("Not for reading.")
    assert _sync(library, notes).skipped == 2
    assert all(str(document.path).isprintable() for document in library.documents())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\ada\\notes.txt", "notes.txt"),
        ("/abs/notes.txt", "notes.txt"),
        ("a\x1b[2J\nb.txt", "a\N{REPLACEMENT CHARACTER}[2J b.txt"),
        ("in\u202etxt.exe\u200b.txt", "in\N{REPLACEMENT CHARACTER}txt.exe\N{REPLACEMENT CHARACTER}.txt"),
        ("n" * 1000 + ".txt", "n" * 251 + ".txt"),
    ],
)
def test_the_name_of_an_upload_is_only_shown(library: Collection, data: Path, name: str, shown: str) -> None:
    before = sorted(file.name for file in data.iterdir())
    document = library.add(b"My plumber is Ada Stone.", name)
    assert (str(document.path), document.state, document.passages) == (shown, "indexed", 1)
    assert sorted(file.name for file in data.iterdir()) == before
    assert library.original(document.id) == b"My plumber is Ada Stone."


def test_an_upload_is_kept_once_and_can_be_removed(library: Collection) -> None:
    document = library.add(b"My plumber is Ada Stone.", "a.txt")
    assert library.add(b"My plumber is Ada Stone.", "b.txt") == document
    assert library.sync().total == 0
    library.remove(document.id)
    assert library.documents() == library.search("plumber") == []
    with pytest.raises(InvalidParameter, match="no document"):
        library.remove(document.id)
    with pytest.raises(InvalidParameter, match="no upload"):
        library.original(document.id)


@pytest.mark.parametrize(
    ("data_", "name", "says"),
    [
        (made.zip_bomb(), "bomb.docx", "unpack"),
        (made.pdf("Hello.")[:-60], "half.pdf", "truncated"),
        (os.urandom(5000), "binary.md", "binary"),
    ],
)
def test_a_broken_upload_is_kept_as_failed_with_its_reason(
    library: Collection, data_: bytes, name: str, says: str
) -> None:
    document = library.add(data_, name)
    assert document.state == "failed"
    assert says in document.reason


def test_an_upload_that_is_too_large_or_of_another_kind_is_refused(library: Collection) -> None:
    with pytest.raises(DocumentsUnreadable, match=r"big\.txt has .* bytes"):
        library.add(b"x" * (MAX_FILE_BYTES + 1), "big.txt")
    with pytest.raises(DocumentsUnreadable, match=r"photo\.png has an unsupported format"):
        library.add(b"x", "photo.png")


def test_a_linked_document_cannot_be_removed_by_itself(library: Collection, notes: Path) -> None:
    _sync(library, notes)
    with pytest.raises(InvalidParameter, match="belongs to a link"):
        library.remove(library.documents()[0].id)


def test_progress_says_what_is_read_and_how_long_the_rest_takes(library: Collection, notes: Path) -> None:
    seen: list[Progress] = []
    library.link(notes)
    library.sync(seen.append)
    assert [(p.current, p.done, p.total) for p in seen] == [("home.md", 0, 2), ("letter.pdf", 1, 2), ("", 2, 2)]
    assert Progress(total=10, indexed=3, failed=1, unchanged=2, elapsed_s=2.0).eta_s == 2.0
    assert Progress(total=10).eta_s is None
    assert library.progress == seen[-1]


def test_documents_can_be_searched_while_others_are_read(library: Collection, notes: Path) -> None:
    found: list[int] = []
    library.link(notes)
    library.sync(lambda progress: found.append(len(library.search("drawer contract"))))
    assert found == [0, 1, 2]


def test_a_damaged_store_says_so(data: Path, notes: Path) -> None:
    library = Collection(data, KEY)
    _sync(library, notes)
    library.close()
    kept = bytearray((data / FILE).read_bytes())
    kept[4096 * 2 :] = bytes(len(kept) - 4096 * 2)
    (data / FILE).write_bytes(kept)
    with pytest.raises(StoreUnreadable, match="damaged"):
        Collection(data, KEY).documents()


CRASHING = """
import os, signal, sys
from pathlib import Path
from user_agent.documents import watcher
from user_agent.documents.extraction import Extractor
from user_agent.documents.collection import Collection
from user_agent.store.encryption_key import StoreKey
from user_agent.documents import store
library = Collection(Path(sys.argv[1]), StoreKey("file", b"raw:" + b"5a" * 32))
read, insert = 0, store._insert
def crash_in_the_middle(*arguments):
    global read
    document_id = insert(*arguments)
    read += 1
    if read == 8:
        os.kill(os.getpid(), signal.SIGKILL)  # passages are written, the transaction is open
    return document_id
store._insert = crash_in_the_middle
library.link(Path(sys.argv[2]))
library.sync()
"""


def test_a_crash_in_the_middle_loses_nothing_and_repeats_nothing(
    data: Path, tmp_path: Path, extracted: list[bytes]
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.txt").write_text(f"Note {number}: the code of box{number} is {number * 7}.\n")
    crashed = subprocess.run([sys.executable, "-c", CRASHING, str(data), str(folder)], timeout=60)
    assert crashed.returncode == -signal.SIGKILL
    library = Collection(data, KEY)
    assert [document.path.name for document in library.documents()] == [f"{number:02}.txt" for number in range(7)]
    progress = library.sync()
    assert (progress.unchanged, progress.indexed) == (7, 13)
    assert sorted(extracted) == sorted(file.read_bytes() for file in sorted(folder.iterdir())[7:])
    assert [len(library.search(f"box{number}")) for number in range(20)] == [1] * 20
    library.close()


def _eventually(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_a_watched_folder_follows_its_files(library: Collection, notes: Path, tmp_path: Path) -> None:
    library.watch()
    library.link(notes)
    _eventually(lambda: len(library.search("drawer")) == 1)
    (notes / "new.txt").write_text("My plumber is Ada Stone.\n")
    _eventually(lambda: len(library.search("plumber")) == 1)
    (tmp_path / "draft").write_text("My plumber is Bo Bay.\n")
    (tmp_path / "draft").rename(notes / "new.txt")  # how editors save
    _eventually(lambda: [p.text for p in library.search("plumber")] == ["My plumber is Bo Bay."])
    (notes / "new.txt").unlink()
    _eventually(lambda: library.search("plumber") == [])


def test_a_watched_file_is_followed_when_it_is_replaced_again_and_again(
    library: Collection, notes: Path, tmp_path: Path
) -> None:
    library.link(notes / "home.md")
    library.watch()
    for word in ("red", "green", "white"):
        _eventually(lambda: library.progress.total == 1 and not library.progress.current)
        (tmp_path / "draft").write_text(f"The key is in the {word} drawer.\n")
        (tmp_path / "draft").rename(notes / "home.md")
        _eventually(lambda word=word: len(library.search(word)) == 1)  # type: ignore[misc]


def test_where_no_more_files_can_be_watched_they_are_looked_at_now_and_then(
    library: Collection, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object, **options: object) -> Iterator[object]:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watcher, "watch", refuse)
    monkeypatch.setattr(watcher, "LONGEST_S", 0.1)
    library.link(notes)
    library.watch()
    _eventually(lambda: len(library.search("drawer")) == 1)
    (notes / "new.txt").write_text("My plumber is Ada Stone.\n")
    _eventually(lambda: len(library.search("plumber")) == 1)


def test_watching_stops_with_the_library(data: Path, notes: Path) -> None:
    library = Collection(data, KEY)
    library.link(notes)
    library.watch()
    library.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "documents-watcher"]


def test_a_search_says_that_nothing_was_found_only_where_there_are_documents(library: Collection, notes: Path) -> None:
    question = "Which train goes to Edinburgh?"
    assert not isinstance(library.search(question), NothingFound)
    _sync(library, notes)
    assert isinstance(library.search(question), NothingFound)
    assert library.search(question) == []
