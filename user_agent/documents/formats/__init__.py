"""From a file's bytes to its text, a module a format.

Files are not trusted: `sections`, which loads a format's module when it is called, is called in the extraction process
only. Other processes take the names and the version from here, and what cuts text into sentences.

| suffix | a section is | told with |
|---|---|---|
| .txt | a paragraph | line |
| .md | a paragraph, or a row of a table | line, headings |
| .html, .htm | a block, a row of a table, or a term with its descriptions | line, headings |
| .pdf | a page | page |
| .docx, .odt | a paragraph, or a row of a table | headings |
| .rtf | a paragraph, or a row of a table | |
| .xlsx, .ods | a row, each value with its column's name | sheet, row as line, the title above the table as heading |
| .pptx, .odp | a paragraph, a row of a table, or a note | slide, its title as heading |
| .csv | a row, each value with its column's name | line |
| .json | the values of one object | |
| .eml | the header; then the blocks of the body | the subject as heading |

A heading without text below it is no section, unless its words would be lost (`headings`).

What a reader of the file sees is what is read. Not read: what the file hides (text, sheets and slides; rows and columns
of a sheet are read, since a filter hides those too), what is in pictures, charts and drawings, headers, footnotes and
comments, the numbers of lists in .odt, .odp and .pptx, formulas without a stored result, attachments of .eml (but their
names).

Hidden text of HTML is known by names, attributes, inline styles and simple rules of `<style>`. It is read all the same
where it is hidden by an external style sheet, by a script, by a selector beyond `.a`, `#a`, `a` and `.a p`, by the
color of what is behind it or by an element that covers it; and so is text that a PDF draws invisibly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

from user_agent.documents.formats.section import Section
from user_agent.documents.visible import visible
from user_agent.errors import DocumentsUnreadable

_MODULES = {
    ".txt": "plain_text",
    ".md": "markdown",
    ".html": "web_page",
    ".htm": "web_page",
    ".pdf": "pdf",
    ".docx": "word",
    ".odt": "open_text",
    ".rtf": "rich_text",
    ".xlsx": "workbook",
    ".ods": "open_sheet",
    ".pptx": "slides",
    ".odp": "open_slides",
    ".csv": "table",
    ".json": "structured",
    ".eml": "mail",
}
SUFFIXES = tuple(_MODULES)
_BLANK = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"  # byte order marks too

READER_VERSION = 4
"""Raise it with every change to what is read of a file: the next sync reads again what an older reader has read."""


def sections(data: bytes, suffix: str) -> Iterator[Section]:
    """The text of a file, in its order, without characters that nobody sees.

    Args:
        data: of the file.
        suffix: one of `SUFFIXES`.

    Raises:
        DocumentsUnreadable: if the file is not what its suffix says; the text is a reason, without the file's name.
    """
    if not data.strip(_BLANK):
        raise DocumentsUnreadable("is empty")
    found: Iterator[Section] = import_module(f"{__name__}.{_MODULES[suffix]}").sections(data)
    return map(_visible, found)


def _visible(section: Section) -> Section:
    text, heading, sheet = map(visible, (section.text, section.heading, section.sheet))
    return replace(section, text=text, heading=heading, sheet=sheet)
