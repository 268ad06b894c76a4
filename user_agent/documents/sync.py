"""One sync: what the files below the links and the store's documents differ in, made equal."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from user_agent.documents.extraction import Extractor
from user_agent.documents.files import FoundFile, find_files, read_file
from user_agent.documents.store import Document, DocumentStore, Link, Reading
from user_agent.errors import DocumentsUnreadable

Outcome = Literal["indexed", "unchanged", "failed", "skipped"]

MOST_TRIES = 3
"""So many syncs try to read anew what an older reader has read; each failure may take the 10 s that a file has."""


@dataclass(frozen=True)
class Progress:
    """The state of a sync, or of the last one at its end.

    Attributes:
        total: files found.
        indexed: of them, read in this sync.
        unchanged: of them, read before.
        failed: of them, should have been read and could not be.
        skipped: of them, of no kind that is read.
        removed: documents whose files are gone.
        elapsed_s: since it began.
        current: name of the file being read; empty between syncs.
        problems: of links that could not be looked at, a line each.
    """

    total: int = 0
    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    skipped: int = 0
    removed: int = 0
    elapsed_s: float = 0.0
    current: str = ""
    problems: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Files that are through."""
        return self.indexed + self.unchanged + self.failed + self.skipped

    @property
    def documents_per_s(self) -> float:
        """Documents read a second, failed ones included."""
        return (self.indexed + self.failed) / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds that the rest takes at this rate; None before the first document."""
        rate = self.documents_per_s
        return (self.total - self.done) / rate if rate else None


def sync_steps(
    store: DocumentStore, extractor: Extractor, tries: Counter[int], *, retry_failed: bool
) -> Iterator[Progress]:
    """Sync, and say how far it is before each file and at the end; may be stopped at any of them.

    Args:
        store: of the documents.
        extractor: reads the files.
        tries: how often each document, by its id, could not be read anew; counted on here.
        retry_failed: read unchanged files and uploads that failed before once more.
    """
    started = time.monotonic()
    progress = Progress()
    found: list[tuple[Link, list[FoundFile]]] = []
    for link in store.links():
        try:
            found.append((link, _files_of(link, store)))
        except OSError as error:
            problem = f"{link.path}: {error.strerror}; its documents are kept as they were"
            progress = replace(progress, problems=(*progress.problems, problem))
    reader = _Reader(store, extractor, tries, retry_failed=retry_failed)
    uploads = [document for document in store.documents() if document.link_id is None and reader.is_due(document)]
    progress = replace(progress, total=len(uploads) + sum(len(files) for _, files in found))
    for link, files in found:
        known = {document.path: document for document in store.documents(link.id)}
        progress = replace(progress, removed=progress.removed + _remove_gone(store, known.values(), files))
        for file in files:
            yield replace(progress, current=file.path.name, elapsed_s=time.monotonic() - started)
            step = _Step(reader, link, known.get(file.path))
            progress = _counted(progress, step.take(file))
    for upload in uploads:
        yield replace(progress, current=upload.path.name, elapsed_s=time.monotonic() - started)
        progress = _counted(progress, reader.read_upload(upload))
    yield replace(progress, elapsed_s=time.monotonic() - started)


def reading_of(file: FoundFile, data: bytes, extractor: Extractor) -> Reading:
    """Read a file's bytes; a failure is a reading too."""
    failed = Reading(file.path, "failed", "", len(data), file.modified_ns, sha256_of(data))
    try:
        pieces = extractor.extract(data, file.path.suffix.lower())
    except DocumentsUnreadable as error:
        return replace(failed, reason=str(error))
    return replace(failed, state="indexed", pieces=pieces)


def sha256_of(data: bytes) -> str:
    """The digest of a file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


class _Reader:
    """Reads what is due, and keeps what an older reader has read for as long as this one cannot."""

    def __init__(self, store: DocumentStore, extractor: Extractor, tries: Counter[int], *, retry_failed: bool) -> None:
        self.store, self.extractor = store, extractor
        self._tries, self._retry_failed = tries, retry_failed

    def is_due(self, document: Document) -> bool:
        """Tell whether a document is to be read again though its bytes are the same."""
        if document.state == "failed" and self._retry_failed:
            return True
        return document.is_outdated and (self._retry_failed or self._tries[document.id] < MOST_TRIES)

    def read_upload(self, upload: Document) -> Outcome:
        """Read an upload again, from its kept bytes."""
        data = self.store.original(upload.id)
        if data is None:  # removed since
            return "unchanged"
        reading = reading_of(FoundFile(upload.path, upload.size_bytes, upload.modified_ns), data, self.extractor)
        if not self.keeps(upload, reading):
            self.store.put_again(reading, upload.id)
        return reading.state

    def keeps(self, known: Document | None, reading: Reading) -> bool:
        """Keep the passages of a document whose bytes are the same and cannot be read anew; tell whether it is one."""
        if not (known and known.state == "indexed" and reading.state == "failed" and known.sha256 == reading.sha256):
            return False
        self._tries[known.id] += 1
        self.store.explain(
            known.id, f"is kept as an older version of Slingshot read it, because now it {reading.reason}"
        )
        return True


@dataclass(frozen=True)
class _Step:
    """One file of a sync, with what is known of it."""

    reader: _Reader
    link: Link
    known: Document | None

    def take(self, file: FoundFile) -> Outcome:
        """Bring the store up to the file."""
        if file.skipped:
            return self._put(Reading(file.path, "skipped", file.skipped, file.size_bytes, file.modified_ns))
        settled = self._settled()
        if settled and (settled.size_bytes, settled.modified_ns) == (file.size_bytes, file.modified_ns):
            return "unchanged"
        try:
            data = read_file(file)
        except DocumentsUnreadable as error:
            return self._put(Reading(file.path, "failed", str(error), file.size_bytes, file.modified_ns))
        except OSError as error:  # may work the next time, so it is tried again
            return self._put(Reading(file.path, "failed", f"cannot be read: {error.strerror}", file.size_bytes))
        if settled and settled.sha256 == sha256_of(data):
            self.reader.store.touch(settled.id, file.modified_ns)
            return "unchanged"
        reading = reading_of(file, data, self.reader.extractor)
        return reading.state if self.reader.keeps(self.known, reading) else self._put(reading)

    def _settled(self) -> Document | None:
        """The known document, if it holds for as long as the file is the same."""
        known = self.known
        return None if known is None or known.state == "skipped" or self.reader.is_due(known) else known

    def _put(self, reading: Reading) -> Outcome:
        is_known = self.known and (self.known.state, self.known.reason) == (reading.state, reading.reason)
        if not (is_known and reading.state == "skipped"):
            self.reader.store.put_linked(reading, self.link.id)
        return reading.state


def _files_of(link: Link, store: DocumentStore) -> list[FoundFile]:
    """Find the files of a link. A linked file that is gone is gone; a folder may be on a disk that is not there now."""
    try:
        return find_files(link.path)
    except FileNotFoundError:
        if [document.path for document in store.documents(link.id)] == [link.path]:
            return []
        raise


def _remove_gone(store: DocumentStore, known: Iterable[Document], files: Sequence[FoundFile]) -> int:
    there = {file.path for file in files}
    shut = {file.path for file in files if file.is_shut}
    gone = [d for d in known if d.path not in there and shut.isdisjoint(d.path.parents)]
    for document in gone:
        store.remove(document.id)
    return len(gone)


def _counted(progress: Progress, outcome: Outcome) -> Progress:
    return replace(progress, **{outcome: getattr(progress, outcome) + 1})
