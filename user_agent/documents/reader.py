"""From files to passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd2.errors import DocumentsUnreadable

SUFFIXES = (".txt", ".md")
MAX_FILE_BYTES = 20 * 1024 * 1024
PASSAGE_CHARACTERS = 240
"""A longer paragraph is cut between sentences into passages of about this size."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_MARKDOWN_PREFIX = re.compile(r"^\s{0,3}(?:[-*+]\s+|\d+[.)]\s+|>\s?|#{1,6}\s+)+")


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        text: without markup, never empty.
        source: the file.
        line: where it begins, from 1.
    """

    text: str
    source: Path
    line: int


def read_passages(path: Path) -> list[Passage]:
    """Read a file, or all .txt and .md files below a folder.

    Args:
        path: a file or a folder.

    Returns:
        Passages in the order of file names and lines.

    Raises:
        DocumentsUnreadable: if there is nothing to read, or a file cannot be read as text.
    """
    if not path.exists():
        raise DocumentsUnreadable(f"there is no {path}; give a folder or a .txt or .md file with --docs")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise DocumentsUnreadable(f"{path} is no {' or '.join(SUFFIXES)} file; others cannot be read yet")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise DocumentsUnreadable(f"there is no {' or '.join(SUFFIXES)} file in {path}")
    return [passage for file in files for passage in _split(_read(file), file)]


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DocumentsUnreadable(f"{file} is larger than {MAX_FILE_BYTES:,} bytes; split it")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentsUnreadable(f"cannot read {file} as UTF-8 text: {error}") from error


def _split(text: str, source: Path) -> Iterator[Passage]:
    """A passage a line; headings are left out, long lines cut between sentences."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") and source.suffix.lower() == ".md":
            continue
        content = _MARKDOWN_PREFIX.sub("", line).replace("**", "").replace("`", "").strip()
        yield from (Passage(piece, source, number) for piece in _pieces(content))


def _pieces(content: str) -> Iterator[str]:
    """Cut between sentences, so that a piece has about `PASSAGE_CHARACTERS`."""
    piece = ""
    for sentence in _SENTENCE_END.split(content):
        if piece and len(piece) + len(sentence) > PASSAGE_CHARACTERS:
            yield piece
            piece = ""
        piece = f"{piece} {sentence}".strip()
    if piece:
        yield piece
