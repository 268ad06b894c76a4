"""From files to passages."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd2.errors import DocumentsUnreadable

SUFFIXES = (".txt", ".md")
MAX_FILE_BYTES = 20 * 1024 * 1024
PASSAGE_CHARACTERS = 240
"""A longer paragraph is cut between sentences into passages of about this size."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_HEADING = re.compile(r"\s{0,3}#{1,6}(\s|$)")
_LIST_MARK = re.compile(r"^\s*(?:[-*+]|>)\s+")
_EMPHASIS = re.compile(r"(\*\*|__|`)(\S.*?\S|\S)\1")


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
    try:
        files = _files(path)
    except OSError as error:
        raise DocumentsUnreadable(f"cannot read {path}: {error}") from error
    if not files:
        raise DocumentsUnreadable(f"there is no {' or '.join(SUFFIXES)} file in {path}")
    return [passage for file in files for passage in _split(_read(file), file)]


def _files(path: Path) -> list[Path]:
    """The files to read, in order; hidden ones and what is no file are left out of a folder."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DocumentsUnreadable(f"{path} is no {' or '.join(SUFFIXES)} file; others cannot be read yet")
        return [path]
    if not path.exists():
        raise DocumentsUnreadable(f"there is no {path}; give a folder or a .txt or .md file with --docs")
    found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DocumentsUnreadable(f"{file} is larger than {MAX_FILE_BYTES:,} bytes; split it")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentsUnreadable(f"cannot read {file} as UTF-8 text: {error}") from error


def _split(text: str, source: Path) -> Iterator[Passage]:
    """A passage a line, long ones cut; of Markdown the headings, list marks and emphasis are left out."""
    is_markdown = source.suffix.lower() == ".md"
    for number, line in enumerate(text.splitlines(), start=1):
        if is_markdown:
            line = "" if _HEADING.match(line) else _EMPHASIS.sub(r"\2", _LIST_MARK.sub("", line))
        yield from (Passage(piece, source, number) for piece in _pieces(line.strip()))


def _pieces(content: str) -> Iterator[str]:
    """Cut into pieces of at most `PASSAGE_CHARACTERS`: between sentences, a longer one between words."""
    piece = ""
    for sentence in _SENTENCE_END.split(content):
        for part in textwrap.wrap(sentence, PASSAGE_CHARACTERS, break_on_hyphens=False) or [""]:
            if piece and len(piece) + len(part) >= PASSAGE_CHARACTERS:
                yield piece
                piece = ""
            piece = f"{piece} {part}".strip()
    if piece:
        yield piece
