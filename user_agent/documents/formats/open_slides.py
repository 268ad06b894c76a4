"""OpenDocument's .odp: the texts, tables and notes of its slides, under their titles."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from user_agent.documents.formats.open_text import texts_of
from user_agent.documents.formats.opendocument import OpenDocument, qualified
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable

_CLASS, _NOTES = qualified("presentation:class"), qualified("presentation:notes")
_NO_CONTENT = ("header", "footer", "date-time", "page-number")


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and rows of each slide that is shown, with its title as their heading; then its notes."""
    document = OpenDocument(data, "an OpenDocument presentation", ".odp")
    body = document.body("office:presentation")
    if body is None:
        raise DocumentsUnreadable("is another kind of OpenDocument, despite its name; rename it")
    for number, slide in enumerate(body.iterchildren(qualified("draw:page")), start=1):
        if not document.is_hidden(slide):
            yield from _sections_of(document, slide, number)


def _sections_of(document: OpenDocument, slide: etree._Element, number: int) -> Iterator[Section]:
    titles, texts = list[str](), list[str]()
    for shape in slide:
        kind = shape.get(_CLASS, "")
        if not isinstance(shape.tag, str) or kind in _NO_CONTENT:
            continue
        mark = "Notes: " if shape.tag == _NOTES else ""
        found = [section.text for section, _ in texts_of(document, [shape]) if section.text.strip()]
        (titles if kind == "title" else texts).extend(mark + text for text in found)
    heading = " ".join(" ".join(titles).split())
    for text in texts or [heading]:  # a title is all that a slide with a picture says
        yield Section(text, heading=heading if texts else "", slide=number)
