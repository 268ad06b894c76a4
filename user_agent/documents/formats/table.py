"""CSV: its rows, each value with the name of its column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

_SNIFFED_CHARACTERS = 64 * 1024


def sections(data: bytes) -> Iterator[Section]:
    """The rows, with their lines."""
    text = decode(data)
    reader = csv.reader(io.StringIO(text, newline=""), _dialect(text[:_SNIFFED_CHARACTERS]))
    names: list[str] | None = None
    begins = 1
    try:
        for row in reader:
            if names is None:
                names = row if _is_header(row) else []
            if row is not names:
                yield Section(_told(row, names), line=begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DocumentsUnreadable(f"is no table that can be read: line {reader.line_num}: {error}") from error


def _dialect(text: str) -> type[csv.Dialect]:
    try:
        return csv.Sniffer().sniff(text, delimiters=",;\t|")
    except csv.Error:
        return csv.excel


def _is_header(row: list[str]) -> bool:
    """Names only: none empty, none twice, none with a digit in it."""
    return bool(row) and len(set(row)) == len(row) and all(c.strip() and not any(map(str.isdigit, c)) for c in row)


def _told(row: list[str], names: list[str]) -> str:
    if len(names) != len(row):
        return ", ".join(value for value in row if value.strip())
    return ", ".join(f"{name}: {value}" for name, value in zip(names, row, strict=True) if value.strip())
