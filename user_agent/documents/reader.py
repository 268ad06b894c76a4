"""From files to passages, without keeping any: for one question, or for tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from user_agent.documents.extraction import Extractor, exposure_warning
from user_agent.documents.files import FoundFile, find_files, read_file
from user_agent.documents.formats import SUFFIXES
from user_agent.documents.formats.section import Section
from user_agent.documents.passage import Passage
from user_agent.errors import DocumentsUnreadable
from user_agent.store.printable import printable


@dataclass(frozen=True)
class Unread:
    """A file that was not read.

    Attributes:
        path: where it is.
        reason: to be read after its name.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Content of files and folders.

    Attributes:
        passages: in the order of paths and of each document.
        failed: files that should have been read.
        skipped: what is of no kind that is read, or hidden.
        exposure: why the files were read on the network; empty if they were not.
    """

    passages: list[Passage]
    failed: list[Unread]
    skipped: list[Unread]
    exposure: str = ""

    def problems(self) -> Iterator[str]:
        """Describe what went wrong: no isolation, each failure, and the number of files that are no documents."""
        if self.exposure:
            yield exposure_warning(self.exposure)
        yield from (printable(_told(unread)) for unread in self.failed)
        if self.skipped:
            kinds = Counter(unread.path.suffix or unread.path.name for unread in self.skipped)
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
            yield printable(f"not read, because the formats are not supported: {counts}")


def read_documents(paths: Sequence[Path]) -> Corpus:
    """Read files, and all documents below folders.

    Raises:
        DocumentsUnreadable: if there is no document at one of the paths, or none of them can be read.
    """
    found = [file for path in paths for file in _files(path)]
    corpus = Corpus([], [], [Unread(file.path, file.skipped) for file in found if file.skipped])
    with Extractor() as extractor:
        for file in found:
            if not file.skipped:
                _read(file, extractor, corpus)
        corpus = replace(corpus, exposure=extractor.exposure())
    if corpus.failed and not corpus.passages:
        raise DocumentsUnreadable(_told(corpus.failed[0]))
    return corpus


def read_passages(path: Path) -> list[Passage]:
    """Read a file, or all documents below a folder, every one of them.

    Raises:
        DocumentsUnreadable: if there is no document, or one cannot be read.
    """
    corpus = read_documents([path])
    if corpus.failed:
        raise DocumentsUnreadable(_told(corpus.failed[0]))
    return corpus.passages


def _files(path: Path) -> list[FoundFile]:
    try:
        files = find_files(path.resolve()) if path.is_symlink() else find_files(path)
    except FileNotFoundError as error:
        raise DocumentsUnreadable(f"{path} does not exist; choose a document or a folder", parameter="docs") from error
    except OSError as error:
        raise DocumentsUnreadable(f"cannot read {path}: {error}; check its permissions") from error
    if all(file.skipped for file in files):
        raise DocumentsUnreadable(
            f"{path} contains no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; choose another folder",
            parameter="docs",
        )
    return files


def _read(file: FoundFile, extractor: Extractor, corpus: Corpus) -> None:
    try:
        pieces = extractor.extract(read_file(file), file.path.suffix.lower())
    except DocumentsUnreadable as error:
        corpus.failed.append(Unread(file.path, str(error)))
    except OSError as error:
        corpus.failed.append(Unread(file.path, f"cannot be read: {error.strerror}"))
    else:
        corpus.passages.extend(passage_of(piece, file.path) for piece in pieces)


def passage_of(piece: Section, source: Path) -> Passage:
    """Make a piece of a file a passage."""
    text, *place = astuple(piece)
    return Passage(text, source, *place)


def _told(unread: Unread) -> str:
    return f"{unread.path} {unread.reason}"
