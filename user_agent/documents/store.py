"""D_user as the agent keeps it: linked folders, documents, and their passages, in one encrypted file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import apsw
import numpy as np
from numpy.typing import NDArray

from user_agent.documents import index
from user_agent.documents.finding import Cosines, found_by_both, found_by_words
from user_agent.documents.formats import READER_VERSION
from user_agent.documents.formats.section import Section
from user_agent.documents.passage import Passage
from user_agent.errors import StoreUnreadable
from user_agent.store.database import open_database, reported
from user_agent.store.encryption_key import StoreKey

VERSION = 3
Vector = NDArray[np.float32]
State = Literal["indexed", "failed", "skipped"]

SCHEMA = f"""
CREATE TABLE link (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, linked_at TEXT NOT NULL);
CREATE TABLE document (
    id INTEGER PRIMARY KEY,
    link_id INTEGER REFERENCES link ON DELETE CASCADE,
    path TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('indexed', 'failed', 'skipped')),
    reason TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    read_at TEXT NOT NULL,
    reader_version INTEGER NOT NULL,
    UNIQUE (link_id, path)
);
CREATE INDEX document_of_bytes ON document (sha256);
CREATE TABLE original (document_id INTEGER PRIMARY KEY REFERENCES document ON DELETE CASCADE, data BLOB NOT NULL);
{index.SCHEMA}
PRAGMA user_version = {VERSION};
"""

_FROM_VERSION_1 = "ALTER TABLE document ADD COLUMN reader_version INTEGER NOT NULL DEFAULT 1;"
_FROM_VERSION_2 = (
    f"{index.FROM_TEXT_ONLY} CREATE INDEX document_of_bytes ON document (sha256); PRAGMA user_version = {VERSION};"
)

_LINKS = """
SELECT link.id, link.path, linked_at, count(document.id) FILTER (WHERE state = 'indexed')
FROM link LEFT JOIN document ON link_id = link.id {where} GROUP BY link.id ORDER BY link.path
"""
_DOCUMENTS = """
SELECT document.id, link_id, path, state, reason, size_bytes, modified_ns, sha256, read_at, reader_version,
    (SELECT count(*) FROM passage WHERE document_id = document.id),
    CASE WHEN state = 'indexed' AND sha256 != '' THEN (
        SELECT first.path FROM document AS first
        WHERE first.sha256 = document.sha256 AND first.state = 'indexed' AND first.id < document.id
        ORDER BY first.id LIMIT 1
    ) END
FROM document {where} ORDER BY path, document.id
"""

_PASSAGES = (
    "SELECT document.id, sha256, path, passage.text, line, page, heading, sheet, slide FROM passage "
    "JOIN document ON document.id = document_id"
)


@dataclass(frozen=True)
class Link:
    """A folder or file of the user's that is kept in sync.

    Attributes:
        id: names it in calls.
        path: absolute.
        linked_at: ISO 8601, UTC.
        documents: how many of it are indexed.
    """

    id: int
    path: Path
    linked_at: str
    documents: int


@dataclass(frozen=True)
class Document:
    """A file that was read, could not be, or is not to be.

    Attributes:
        id: names it in calls.
        link_id: the link that it came by; None for an upload.
        path: absolute; of an upload only the name that it was given.
        state: indexed; failed, though it should have been read; or skipped, as no kind that is read.
        reason: of what is not indexed, or could not be read anew, to be read after the name; else empty.
        size_bytes: of the file.
        modified_ns: its time of change when it was read; 0 if it has to be read again.
        sha256: of its bytes, in hex; empty if they were not read.
        read_at: ISO 8601, UTC.
        reader_version: the `READER_VERSION` of the formats when it was read.
        passages: how many it has.
        copy_of: the first document with the same bytes, with which its passages are found once; None if it is that one.
    """

    id: int
    link_id: int | None
    path: Path
    state: State
    reason: str
    size_bytes: int
    modified_ns: int
    sha256: str
    read_at: str
    reader_version: int
    passages: int
    copy_of: Path | None = None

    @property
    def is_outdated(self) -> bool:
        """True if the formats may read its file in another way today."""
        return self.reader_version != READER_VERSION


@dataclass(frozen=True)
class Reading:
    """The outcome of reading one file; the attributes are `Document`'s.

    Attributes:
        pieces: its text; none unless it is indexed.
    """

    path: Path
    state: State
    reason: str = ""
    size_bytes: int = 0
    modified_ns: int = 0
    sha256: str = ""
    pieces: Sequence[Section] = ()


class DocumentStore:
    """Links, documents and passages. For any number of threads; each call is one transaction.

    Every call raises StoreUnreadable if the file is damaged or cannot be written.
    """

    def __init__(self, file: Path, key: StoreKey | None) -> None:
        """Open the store, made if missing.

        Raises:
            StoreKeyWrong: if it was encrypted with another key.
            StoreUnreadable: if it is damaged, was written by a newer version, or cannot be read or written.
        """
        self.on_removal: Callable[[], None] = lambda: None  # called behind each call that passages are gone by
        self._file = file
        self._changes = 0  # transactions that may have written
        self._vectors: tuple[object, NDArray[np.int64], NDArray[np.float32]] | None = None
        self._lock = threading.Lock()
        self._database = open_database(file, key)
        with self._writing() as database:
            version = database.pragma("user_version")
            if version > VERSION:
                raise StoreUnreadable(f"{file} was written by a newer version of Slingshot; install that version")
            if version == 0:
                database.execute(SCHEMA)
            if version == 1:
                database.execute(_FROM_VERSION_1)
            if version in (1, 2):
                database.execute(_FROM_VERSION_2)
                for (document_id,) in cast("list[tuple[int]]", database.execute("SELECT id FROM document").fetchall()):
                    index.add(database, document_id)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add_link(self, path: Path) -> Link:
        """Keep a folder or file; one that is kept already stays as it is."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO link (path, linked_at) VALUES (?, ?) ON CONFLICT DO NOTHING", (str(path), _now())
            )
            return _links(database, "WHERE link.path = ?", str(path))[0]

    def remove_link(self, link_id: int) -> None:
        """Forget a link with its documents; none if there is none."""
        with self._writing() as database:
            database.execute("DELETE FROM link WHERE id = ?", (link_id,))
        self.on_removal()

    def links(self) -> list[Link]:
        """All links, by path."""
        with self._reading() as database:
            return _links(database, "")

    def documents(self, link_id: int | None = None) -> list[Document]:
        """The documents of a link, or all, by path."""
        with self._reading() as database:
            return _documents(database, "" if link_id is None else "WHERE link_id = ?", *_given(link_id))

    def document(self, document_id: int) -> Document | None:
        """One document."""
        with self._reading() as database:
            return next(iter(_documents(database, "WHERE document.id = ?", document_id)), None)

    def uploaded(self, sha256: str) -> Document | None:
        """The upload with these bytes."""
        with self._reading() as database:
            return next(iter(_documents(database, "WHERE link_id IS NULL AND sha256 = ?", sha256)), None)

    def put_linked(self, reading: Reading, link_id: int) -> None:
        """Keep what came of reading a file in place of what was kept of it: its state and its passages together.

        Nothing is kept if the link was removed while the file was read.
        """
        with self._writing() as database:
            database.execute("DELETE FROM document WHERE link_id = ? AND path = ?", (link_id, str(reading.path)))
            was_known = database.changes() > 0
            if _links(database, "WHERE link.id = ?", link_id):
                _insert(database, reading, link_id)
        if was_known:
            self.on_removal()

    def put_upload(self, reading: Reading, original: bytes) -> Document:
        """Keep what came of reading an upload, with its bytes."""
        with self._writing() as database:
            document_id = _insert(database, reading, None)
            database.execute("INSERT INTO original VALUES (?, ?)", (document_id, original))
            return _documents(database, "WHERE document.id = ?", document_id)[0]

    def put_again(self, reading: Reading, document_id: int) -> None:
        """Keep what came of reading an upload anew in place of what was kept of it; nothing if it was removed."""
        with self._writing() as database:
            database.execute("DELETE FROM passage WHERE document_id = ?", (document_id,))
            database.execute(
                "UPDATE document SET state = ?, reason = ?, reader_version = ?, read_at = ? WHERE id = ?",
                (reading.state, reading.reason, READER_VERSION, _now(), document_id),
            )
            if database.changes():
                _insert_pieces(database, reading, document_id)
        self.on_removal()

    def explain(self, document_id: int, reason: str) -> None:
        """Keep why a document stays as an older reader has read it."""
        with self._writing() as database:
            database.execute("UPDATE document SET reason = ? WHERE id = ?", (reason, document_id))

    def touch(self, document_id: int, modified_ns: int) -> None:
        """Keep that a file has a new time of change and the same bytes."""
        with self._writing() as database:
            database.execute("UPDATE document SET modified_ns = ? WHERE id = ?", (modified_ns, document_id))

    def remove(self, document_id: int) -> None:
        """Forget a document with its passages; none if there is none."""
        with self._writing() as database:
            database.execute("DELETE FROM document WHERE id = ?", (document_id,))
        self.on_removal()

    def original(self, document_id: int) -> bytes | None:
        """The bytes of an upload; None for anything else."""
        with self._reading() as database:
            data = database.execute("SELECT data FROM original WHERE document_id = ?", (document_id,)).get
            return None if data is None else bytes(data)

    def search(
        self, question: str, document_ids: Sequence[int] | None = None, vector: Vector | None = None
    ) -> list[Passage]:
        """The passages that a question is about, the best match first; none if `find` decides so."""
        passages, is_found = self.find(question, document_ids, vector)
        return passages if is_found else []

    def find(
        self, question: str, document_ids: Sequence[int] | None = None, vector: Vector | None = None
    ) -> tuple[list[Passage], bool]:
        """Return the passages that come closest to a question, the best first, and whether any is about it.

        Of files with the same bytes only the first one's are told.

        Args:
            question: in the user's words; nothing in it is read as query syntax.
            document_ids: where to search; None for everywhere.
            vector: of the question, [D], of length 1; None to search by words only.
        """
        with self._reading() as database:
            matches = index.matches(database, question, document_ids)
            if vector is None:
                found = found_by_words(matches)
            else:
                found = found_by_both(matches, self._cosines(database, vector, document_ids))
            passages = [_passage(database, one) for one in found.ids]
        return _each_once(passages), found.is_found

    def has_passages(self) -> bool:
        """Return True if there is anything to search."""
        with self._reading() as database:
            return bool(database.execute("SELECT EXISTS (SELECT 1 FROM passage)").get)

    def without_vector(self, most: int) -> list[tuple[int, str]]:
        """Return id and text, as it is embedded, of some passages without a sentence vector."""
        query = (
            "SELECT id, name || ': ' || heading || ' ' || sheet || ' ' || text FROM passage "
            "WHERE id NOT IN (SELECT passage_id FROM vector) LIMIT ?"
        )
        with self._reading() as database:
            rows = cast("list[tuple[int, str]]", database.execute(query, (most,)).fetchall())
        return [(passage_id, " ".join(text.split())) for passage_id, text in rows]

    def put_vectors(self, ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Keep sentence vectors, [N, D]; not those of passages that are gone since."""
        rows = [(one, vector.astype(np.float16).tobytes()) for one, vector in zip(ids, vectors, strict=True)]
        with self._writing() as database:
            database.executemany("INSERT OR REPLACE INTO vector SELECT id, ?2 FROM passage WHERE id = ?1", rows)

    def _cosines(self, database: apsw.Connection, vector: Vector, document_ids: Sequence[int] | None) -> Cosines:
        """Multiply a question with all vectors, which are kept in memory until something changes."""
        state = (database.pragma("data_version"), self._changes)
        if self._vectors is None or self._vectors[0] != state:
            query = "SELECT passage_id, data FROM vector ORDER BY passage_id"
            rows = cast("list[tuple[int, bytes]]", database.execute(query).fetchall())
            ids = np.array([one for one, _ in rows], np.int64)
            data = np.frombuffer(b"".join(data for _, data in rows), np.float16).reshape(len(rows), -1 if rows else 0)
            self._vectors = (state, ids, data.astype(np.float32))
        _, ids, vectors = self._vectors
        if not len(ids):
            return Cosines(ids, np.zeros(0, np.float32))
        if document_ids is not None:
            wanted = np.isin(ids, _passage_ids(database, document_ids))
            ids, vectors = ids[wanted], vectors[wanted]
        return Cosines(ids, vectors @ vector)

    def passages(self, document_ids: Sequence[int] | None = None) -> list[Passage]:
        """Return the passages of the documents with these ids, or of all, by path and in the order of each document.

        Of files with the same bytes only the first one's are told.
        """
        with self._reading() as database:
            rows = list(database.execute(f"{_PASSAGES} ORDER BY path, passage.id"))
        wanted = None if document_ids is None else frozenset(document_ids)
        return _each_once(_read(row) for row in rows if wanted is None or row[0] in wanted)

    def _reading(self) -> AbstractContextManager[apsw.Connection]:
        """One state of the database, whatever another process writes meanwhile."""
        return self._transaction("BEGIN")

    def _writing(self) -> AbstractContextManager[apsw.Connection]:
        """All or nothing; the database's only writer from its first statement on."""
        self._changes += 1
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[apsw.Connection]:
        with self._lock, reported(self._file):
            self._database.execute(begin)
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")


def _passage_ids(database: apsw.Connection, document_ids: Sequence[int]) -> NDArray[np.int64]:
    query = "SELECT id FROM passage WHERE document_id IN (SELECT value FROM json_each(?))"
    return np.array([one for (one,) in database.execute(query, (json.dumps(list(document_ids)),))], np.int64)


def _links(database: apsw.Connection, where: str, *values: Any) -> list[Link]:
    rows = database.execute(_LINKS.format(where=where), values)
    return [Link(link_id, Path(path), *rest) for link_id, path, *rest in rows]


def _documents(database: apsw.Connection, where: str, *values: Any) -> list[Document]:
    rows = database.execute(_DOCUMENTS.format(where=where), values)
    return [
        replace(Document(document_id, link_id, Path(path), *rest), copy_of=first and Path(first))
        for document_id, link_id, path, *rest, first in rows
    ]


def _given(value: int | None) -> tuple[int, ...]:
    return () if value is None else (value,)


def _insert(database: apsw.Connection, reading: Reading, link_id: int | None) -> int:
    values = (reading.state, reading.reason, reading.size_bytes, reading.modified_ns, reading.sha256)
    database.execute(
        "INSERT INTO document (link_id, path, state, reason, size_bytes, modified_ns, sha256, read_at, "
        "reader_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (link_id, str(reading.path), *values, _now(), READER_VERSION),
    )
    document_id = database.last_insert_rowid()
    _insert_pieces(database, reading, document_id)
    return document_id


def _insert_pieces(database: apsw.Connection, reading: Reading, document_id: int) -> None:
    name = index.words_of_name(reading.path)
    database.executemany(
        "INSERT INTO passage (document_id, name, text, line, page, heading, sheet, slide) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((document_id, name, *astuple(piece)) for piece in reading.pieces),
    )
    index.add(database, document_id)


_Kept = tuple[Passage, int, str]
"""A passage with the id of its document and the digest of its file."""


def _passage(database: apsw.Connection, passage_id: int) -> _Kept:
    return _read(next(database.execute(f"{_PASSAGES} WHERE passage.id = ?", (passage_id,))))


def _read(row: Sequence[Any]) -> _Kept:
    document_id, sha256, path, text, *place = row
    return Passage(text, Path(path), *place), document_id, sha256


def _each_once(found: Iterable[_Kept]) -> list[Passage]:
    """The passages without those of further copies of a file; a file that says something twice keeps both."""
    kept, first = list[Passage](), dict[tuple[str, Passage], int]()
    for passage, document_id, sha256 in found:
        key = (sha256, replace(passage, source=Path()))
        if not sha256 or first.setdefault(key, document_id) == document_id:
            kept.append(passage)
    return kept


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
