"""CSV: its rows, each value with the name of its column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain

from ssd2.errors import DocumentsUnreadable
from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

_SAMPLE_CHARACTERS = 64 * 1024
_DELIMITERS = ",;\t|"


def sections(data: bytes) -> Iterator[Section]:
    """The rows, with their lines; last, the names of the columns in which no row has a value."""
    text = decode(data)
    rows = _rows(text, _delimiter(text[:_SAMPLE_CHARACTERS]))
    first = next(rows, (1, []))
    names = first[1] if _is_header(first[1]) else []
    untold = set(names)
    for line, row in rows if names else chain([first], rows):
        if len(row) != len(names):
            yield Section(_listed(row), line=line)
            continue
        values = {name: value for name, value in zip(names, row, strict=True) if value.strip()}
        untold.difference_update(values)
        yield Section(_listed(f"{name}: {value}" for name, value in values.items()), line=line)
    yield Section(_listed(name for name in names if name in untold), line=1)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line that it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    begins = 1
    try:
        for row in reader:
            if row:
                yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DocumentsUnreadable(f"is no table that can be read: line {reader.line_num}: {error}") from error


def _delimiter(sample: str) -> str:
    """The one that cuts most rows into as many cells as the first, which is more than one; else the comma.

    Python's own sniffer also guesses at quotes, and takes apostrophes for them.
    """
    best, most = ",", 0
    for delimiter in _DELIMITERS:
        widths = [len(row) for _, row in _rows(sample, delimiter)]
        count = widths.count(widths[0]) if widths and widths[0] > 1 else 0
        if count > most:
            best, most = delimiter, count
    return best


def _is_header(row: list[str]) -> bool:
    """Names only: none empty, none twice, none with a digit in it."""
    return bool(row) and len(set(row)) == len(row) and all(c.strip() and not any(map(str.isdigit, c)) for c in row)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(value for value in values if value.strip())
