"""The documents as the rest of the agent uses them: linked, uploaded, kept in sync, searched."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.errors import InvalidParameter
from user_agent.documents.embedding import Embedding
from user_agent.documents.extraction import Extractor
from user_agent.documents.files import FoundFile, check_size
from user_agent.documents.formats import SUFFIXES
from user_agent.documents.passage import NothingFound, Passage
from user_agent.documents.store import Document, DocumentStore, Link
from user_agent.documents.sync import Progress, reading_of, sha256_of, sync_steps
from user_agent.errors import DocumentsUnreadable
from user_agent.store.encryption_key import StoreKey
from user_agent.store.printable import printable

if TYPE_CHECKING:
    from user_agent.documents.watcher import Watcher

FILE = "documents.sqlite"
_LONGEST_NAME = 255

SAMPLE_DOCUMENTS, SAMPLE_PASSAGES = 20, 200
"""Most documents and passages of a sample: reading a few takes no time, however large the folder."""

_SAMPLE_SEED = "sample"

EMBEDDED_TOGETHER = 64
"""Passages whose vectors are kept in one transaction; searches go on between."""


class Collection:
    """Linked folders and uploads, over their store. For any number of threads."""

    def __init__(self, data_folder: Path, key: StoreKey | None, embedding_file: Path | None = None) -> None:
        """Open the documents of a data folder.

        Args:
            data_folder: where they are.
            key: of the store; None if it is not encrypted.
            embedding_file: of the sentence vectors; None, or one that is not there, to search by words only.

        Raises:
            StoreKeyWrong: if they were encrypted with another key.
            StoreUnreadable: if they cannot be read or written.
        """
        self._store = DocumentStore(data_folder / FILE, key)
        self._extractor = Extractor()
        self._sync_lock = threading.Lock()
        self._closing = threading.Event()
        self._progress = Progress()
        self._tries = Counter[int]()
        self._embedding = Embedding(embedding_file)
        self._watcher: Watcher | None = None

    def watch(self) -> None:
        """Keep the links in sync from now on, in a thread; once in a library's life."""
        from user_agent.documents.watcher import Watcher  # what only lists documents need not load it

        self._watcher = Watcher(lambda: [link.path for link in self.links()], self.sync)

    def on_removal(self, call: Callable[[], None]) -> None:
        """Register a callback, run in any thread, for when passages of a removed, unlinked or changed file are gone."""
        self._store.on_removal = call

    def close(self) -> None:
        """Stop watching, and a sync after the document that it reads; close the store."""
        self._closing.set()
        if self._watcher:
            self._watcher.stop()
        with self._sync_lock:
            self._extractor.close()
            self._store.close()

    @property
    def progress(self) -> Progress:
        """The state of the sync that runs, or of the last one."""
        return self._progress

    def exposure(self) -> str:
        """See `Extractor.exposure`."""
        return self._extractor.exposure()

    def link(self, path: Path) -> Link:
        """Keep a folder or a file from now on; its documents are there after the next `sync`.

        Raises:
            InvalidParameter: if it is no path, inside another link, or around one, or its name cannot be shown.
            DocumentsUnreadable: if it is not there, or a file of a kind that is not read.
        """
        path = _real(path)
        if not str(path).isprintable():
            raise InvalidParameter(f"the name {printable(str(path))} is not UTF-8 or has control characters; rename it")
        for link in self.links():
            if link.path != path and (link.path in path.parents or path in link.path.parents):
                raise InvalidParameter(f"{path} overlaps the linked {link.path}; remove that link first")
        if not path.is_dir():
            _check_document(path)
        added = self._store.add_link(path)
        self._wake_watcher()
        return added

    def unlink(self, link_id: int) -> None:
        """Forget a link and its documents; the files stay.

        Raises:
            InvalidParameter: if there is no such link.
        """
        if all(link.id != link_id for link in self.links()):
            raise InvalidParameter(f"there is no link {link_id}; choose one of the links", parameter="link")
        self._store.remove_link(link_id)
        self._wake_watcher()

    def links(self) -> list[Link]:
        """All links, by path."""
        return self._store.links()

    def documents(self) -> list[Document]:
        """All documents, by path; what failed and what is skipped too."""
        return self._store.documents()

    def add(self, data: bytes, name: str) -> Document:
        """Read an upload and keep it, encrypted with the passages; the same bytes again are read if they failed.

        Args:
            data: of the file.
            name: for people to read; it names no file.

        Raises:
            DocumentsUnreadable: if it is too large or of a kind that is not read. One that is broken is kept as failed.
        """
        shown = _shown_name(name)
        try:
            check_size(len(data))
        except DocumentsUnreadable as error:
            raise DocumentsUnreadable(f"{shown} {error}") from error
        _check_suffix(Path(shown))
        known = self._store.uploaded(sha256_of(data))
        if known and known.state != "failed":
            return known
        reading = reading_of(FoundFile(Path(shown), len(data), time.time_ns()), data, self._extractor)
        if known is None:
            return self._store.put_upload(reading, data)
        self._store.put_again(reading, known.id)
        return self._store.document(known.id) or self._store.put_upload(reading, data)  # removed while it was read

    def original(self, document_id: int) -> bytes:
        """The bytes of an upload.

        Raises:
            InvalidParameter: if there is no such upload.
        """
        data = self._store.original(document_id)
        if data is None:
            raise InvalidParameter(
                f"there is no upload {document_id}; choose one of the documents", parameter="document"
            )
        return data

    def remove(self, document_id: int) -> None:
        """Forget an upload.

        Raises:
            InvalidParameter: if there is none, or it is a linked file, which the next sync would bring back.
        """
        document = self._store.document(document_id)
        if document is None:
            raise InvalidParameter(
                f"there is no document {document_id}; choose one of the documents", parameter="document"
            )
        if document.link_id is not None:
            raise InvalidParameter(f"{document.path} belongs to a link; delete the file, or remove the link")
        self._store.remove(document_id)

    def passages(self, document_ids: Sequence[int] | None = None) -> list[Passage]:
        """Return all passages of the documents with these ids, or of all."""
        return self._store.passages(document_ids)

    def sample(self, link_ids: Container[int]) -> list[Passage]:
        """Return some passages of these links' documents, the same ones each time."""
        indexed = [one.id for one in self.documents() if one.link_id in link_ids and one.state == "indexed"]
        chosen = random.Random(_SAMPLE_SEED)
        passages = self.passages(chosen.sample(indexed, min(len(indexed), SAMPLE_DOCUMENTS))) if indexed else []
        return chosen.sample(passages, min(len(passages), SAMPLE_PASSAGES))

    def documents_of(self, link_ids: Container[int]) -> tuple[int, ...]:
        """Return the ids of the documents of these links."""
        return tuple(document.id for document in self.documents() if document.link_id in link_ids)

    def search(self, question: str, document_ids: Sequence[int] | None = None) -> list[Passage]:
        """The passages that a question is about, the best match first; of these documents, or of all."""
        passages, is_found = self.find(question, document_ids)
        if is_found:
            return passages
        return NothingFound() if self._store.has_passages() else []

    def find(self, question: str, document_ids: Sequence[int] | None = None) -> tuple[list[Passage], bool]:
        """Return the passages that come closest to a question, the best first, and whether any is about it."""
        model = self._embedding.model
        vector = model.question(question) if model and question.strip() else None
        return self._store.find(question, document_ids, vector)

    def embed(self) -> int:
        """Make the sentence vectors that are missing, unless there is no model; return how many were made."""
        made = 0
        while (model := self._embedding.model) and not self._closing.is_set():
            some = self._store.without_vector(EMBEDDED_TOGETHER)
            if not some:
                break
            self._store.put_vectors([one for one, _ in some], model.passages([text for _, text in some]))
            made += len(some)
        return made

    def sync(
        self, on_progress: Callable[[Progress], None] = lambda progress: None, *, retry_failed: bool = False
    ) -> Progress:
        """Read what is new or changed below the links, and forget what is gone. One sync at a time.

        A file with the size and time of change of before is not opened; one with the same bytes is not read anew. What
        an older version of the reader has read is read again, uploads included, and stays as it was where that fails;
        after `MOST_TRIES` syncs the next collection tries on. A link that cannot be looked at, as on a disk that is not
        there, keeps its documents.

        Args:
            on_progress: called after each file.
            retry_failed: read unchanged files and uploads that failed before once more.
        """
        with self._sync_lock:
            for progress in sync_steps(self._store, self._extractor, self._tries, retry_failed=retry_failed):
                self._progress = progress
                on_progress(progress)
                if self._closing.is_set():
                    break
            self.embed()
            self._progress = replace(self._progress, current="")
            return self._progress

    def _wake_watcher(self) -> None:
        if self._watcher:
            self._watcher.wake()


def _real(path: Path) -> Path:
    """Resolve a path.

    Raises:
        InvalidParameter: if it cannot be one: too long, with a zero in it, of a user that there is not.
    """
    try:
        real = path.expanduser().resolve()
        real.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidParameter(
            f"cannot open {printable(str(path))[:_LONGEST_NAME]}: {reason}; choose a folder or a document"
        ) from error
    return real


def _check_document(path: Path) -> None:
    if not path.is_file():
        raise DocumentsUnreadable(f"{path} does not exist; link a folder or a document")
    _check_suffix(path)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise DocumentsUnreadable(f"{path} has an unsupported format; use one of {', '.join(SUFFIXES)}")


def _shown_name(name: str) -> str:
    """The last part of a name, as text for a person."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return printable(last.replace("\n", " "))[-_LONGEST_NAME:] or "upload"
