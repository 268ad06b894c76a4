"""Word's .docx: paragraphs and rows of tables, once the archive is known to be harmless."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import docx
from docx.opc.exceptions import PackageNotFoundError
from docx.table import Table

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.encoding import looks_like
from user_agent.documents.formats.section import Section

MAX_ENTRIES = 2_000
MAX_UNPACKED_BYTES = 100 * 1024 * 1024
MAX_RATIO = 200  # XML of real documents packs to a fifth or a thirtieth


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and rows in the document's order. Parts of the archive are read by name, and none is unpacked."""
    _check_archive(data)
    try:
        document = docx.Document(io.BytesIO(data))
    except (KeyError, ValueError, PackageNotFoundError, zipfile.BadZipFile) as error:
        raise DocumentsUnreadable(f"is no Word document: {error}") from error
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            yield from (Section(_row([cell.text for cell in row.cells])) for row in item.rows)
        else:
            yield Section(item.text)


def _row(cells: list[str]) -> str:
    """A merged cell is told once."""
    return ", ".join(cell for cell, before in zip(cells, [None, *cells], strict=False) if cell and cell != before)


def _check_archive(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        is_archive = data.startswith(b"PK")
        reason = "is cut short or damaged" if is_archive else f"is {looks_like(data) or 'no Word document'}"
        raise DocumentsUnreadable(f"{reason}; save it anew as .docx") from error
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED_BYTES or unpacked > MAX_RATIO * len(data):
        raise DocumentsUnreadable(
            f"would unpack from {len(data):,} bytes to {len(entries):,} parts of {unpacked:,}: no document takes that"
        )
