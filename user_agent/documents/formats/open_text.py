"""OpenDocument's .odt: paragraphs and rows of tables, under their headings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lxml import etree

from user_agent.documents.formats.headings import TITLE, Leveled, under_headings
from user_agent.documents.formats.opendocument import HEADING, PARAGRAPH, TABLE, OpenDocument, qualified
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and rows in the document's order. Comments, notes and numbers of lists are not read."""
    document = OpenDocument(data, "an OpenDocument text", ".odt")
    body = document.body("office:text")
    if body is None:
        raise DocumentsUnreadable("is another kind of OpenDocument, despite its name; rename it")
    return under_headings(texts_of(document, body))


def texts_of(document: OpenDocument, parent: Iterable[etree._Element]) -> Iterator[Leveled]:
    """Yield the paragraphs and rows below an element; a frame follows the paragraph that it is fixed to."""
    for element in parent:
        if not isinstance(element.tag, str) or document.is_hidden(element):
            continue
        if element.tag in (PARAGRAPH, HEADING):
            yield Section(document.text_of(element)), _level_of(document, element)
            for frame in document.frames_of(element):
                yield from texts_of(document, frame)
        elif element.tag == TABLE:
            yield from ((Section(text), None) for text in rows_of(document, element))
        else:
            yield from texts_of(document, element)


def rows_of(document: OpenDocument, table: etree._Element) -> Iterator[str]:
    """Yield the rows of a table in a text or on a slide, their cells with commas between them."""
    for row in table.iter(qualified("table:table-row")):
        if next(row.iterancestors(TABLE), None) is table:  # not of a table in a cell
            cells = (
                " ".join(" ".join(section.text.split()) for section, _ in texts_of(document, cell) if section.text)
                for cell in row.iterchildren(qualified("table:table-cell"))
            )
            yield ", ".join(filter(str.strip, cells))


def _level_of(document: OpenDocument, paragraph: etree._Element) -> int | None:
    if paragraph.tag == HEADING:
        level = paragraph.get(qualified("text:outline-level"), "1")
        return int(level) if level.isdecimal() and 0 < int(level) < 100 else 1
    return TITLE if document.is_title(paragraph) else None
