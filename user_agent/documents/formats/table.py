"""CSV: its rows, each value with the name of its column."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

_SAMPLE_CHARACTERS = 64 * 1024
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r"sep=([^\r\n\"])(?:\r\n|\r|\n|$)", re.IGNORECASE)  # Excel's first line


def sections(data: bytes) -> Iterator[Section]:
    """The rows, with their lines; last, the names of the columns in which no row has a value."""
    text = decode(data)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    named = _SEPARATOR.match(text)
    rows = _rows(text[named.end() :], named[1], 2) if named else _rows(text, _delimiter(text[:_SAMPLE_CHARACTERS]))
    return told_rows(rows)


def told_rows(rows: Iterator[tuple[int, list[str]]], *, is_headed: bool | None = None) -> Iterator[Section]:
    """Tell the rows of a table, each value with the name of its column where the first row has names.

    Args:
        rows: with their numbers.
        is_headed: whether the first one has the names; None to tell by its looks.
    """
    first = next(rows, (1, []))
    names = first[1] if (is_header(first[1]) if is_headed is None else is_headed) else []
    untold = set(names)
    for line, row in rows if names else chain([first], rows):
        if len(row) != len(names):
            yield Section(_listed(row), line=line)
            continue
        values = {name: value for name, value in zip(names, row, strict=True) if value.strip()}
        untold.difference_update(values)
        yield Section(
            _listed(f"{name}: {value}" if name.strip() else value for name, value in values.items()), line=line
        )
    yield Section(_listed(name for name in names if name in untold), line=first[0])


def _rows(text: str, delimiter: str, line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line that it begins on; the text begins on `line`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    begins = line
    for row in reader:
        if row:
            yield begins, row
        begins = reader.line_num + line


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


def is_header(row: list[str]) -> bool:
    """Names only: none empty, none twice, none with a digit in it."""
    return bool(row) and len(set(row)) == len(row) and all(c.strip() and not any(map(str.isdigit, c)) for c in row)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(value for value in values if value.strip())
