"""OpenDocument's .ods: the rows of its sheets, as they are shown; hidden sheets are not read."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from user_agent.documents.formats.cells import Cell, Row, sheet_sections
from user_agent.documents.formats.opendocument import PARAGRAPH, TABLE, OpenDocument, qualified
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable

_MOST_REPEATED = 1_000
"""A cell or row with content that is repeated more often is filled in, not written."""

_MOST_COLUMNS = 16_384
_VALUES = ("float", "percentage", "currency", "date", "time", "boolean")
_CELLS = tuple(map(qualified, ("table:table-cell", "table:covered-table-cell")))


def sections(data: bytes) -> Iterator[Section]:
    """The rows of the visible sheets, in their order."""
    document = OpenDocument(data, "an OpenDocument spreadsheet", ".ods")
    body = document.body("office:spreadsheet")
    if body is None:
        raise DocumentsUnreadable("is another kind of OpenDocument, despite its name; rename it")
    for sheet in body.iterchildren(TABLE):
        if not document.is_hidden(sheet):
            yield from sheet_sections(sheet.get(qualified("table:name"), ""), _rows(document, sheet))


def _rows(document: OpenDocument, sheet: etree._Element) -> Iterator[Row]:
    number = 1
    for row in sheet.iter(qualified("table:table-row")):
        cells = _cells(document, row)
        repeated = _repeated(row, "table:number-rows-repeated")
        for copy in range(min(repeated, _MOST_REPEATED) if cells else 1):
            yield number + copy, cells
        number += repeated


def _cells(document: OpenDocument, row: etree._Element) -> list[Cell]:
    """The cells up to the last that shows something."""
    cells, empty = list[Cell](), 0
    for element in row.iterchildren(*_CELLS):
        cell, repeated = _cell(document, element), _repeated(element, "table:number-columns-repeated")
        if not cell.text.strip():
            empty += repeated
            continue
        cells += [Cell()] * min(empty, _MOST_COLUMNS - len(cells)) + [cell] * min(repeated, _MOST_REPEATED)
        empty = 0
    return cells[:_MOST_COLUMNS]


def _cell(document: OpenDocument, element: etree._Element) -> Cell:
    shown = (document.text_of(paragraph) for paragraph in element.iterchildren(PARAGRAPH))
    return Cell("\n".join(shown), element.get(qualified("office:value-type")) in _VALUES)


def _repeated(element: etree._Element, attribute: str) -> int:
    count = element.get(qualified(attribute), "1")
    return max(1, int(count)) if count.isdecimal() and len(count) < 10 else 1
