"""Word's .docx: paragraphs and rows of tables, once the archive is known to be harmless.

Text is what Word shows with all changes accepted: insertions are in it, deletions and hidden text are not. python-docx
alone would leave out insertions, fields, content controls, equations and text boxes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator

import docx
from docx.document import Document
from docx.opc.exceptions import PackageNotFoundError
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement

from user_agent.documents.formats.archive import check_archive
from user_agent.documents.formats.headings import TITLE, Leveled, under_headings
from user_agent.documents.formats.section import Section
from user_agent.documents.formats.word_numbers import Numbers
from user_agent.errors import DocumentsUnreadable

_HEADING = re.compile(r"title|heading ([1-9])")
_PARAGRAPH, _TABLE, _ROW, _CELL, _RUN = (qn(f"w:{name}") for name in ("p", "tbl", "tr", "tc", "r"))
_TEXT_BOX = qn("w:txbxContent")
_TEXTS = frozenset((qn("w:t"), qn("m:t")))
_CHARACTERS = {qn("w:tab"): "\t", qn("w:ptab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
# Deletions; the properties, where a tab is a tab stop; what a drawing is to old versions of Word, once more.
_NO_TEXT = frozenset(
    (
        *map(qn, ("w:del", "w:moveFrom", "w:pPr", "w:rPr")),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    )
)


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and rows in the document's order. Parts of the archive are read by name, and none is unpacked."""
    check_archive(data, "a Word document", ".docx")
    try:
        document = docx.Document(io.BytesIO(data))
    except (KeyError, ValueError, PackageNotFoundError, zipfile.BadZipFile) as error:
        raise DocumentsUnreadable(f"is not a Word document ({error}); save it as .docx again") from error
    return under_headings(_Shown(document).sections(document.element.body))


class _Shown:
    """The paragraphs and rows that Word shows of a document."""

    def __init__(self, document: Document) -> None:
        styles = list(document.styles.element.iterchildren(qn("w:style")))
        self._numbers = Numbers(document)
        self._levels = {style.get(qn("w:styleId")): _level_of(style) for style in styles}
        self._hiding = {style.get(qn("w:styleId")) for style in styles if _is_on(style.find(_path("rPr", "vanish")))}

    def sections(self, parent: BaseOxmlElement) -> Iterator[Leveled]:
        """The paragraphs and rows below an element; a text box follows the paragraph that it is fixed to.

        A paragraph with the style of a heading or title is told with its level.
        """
        for element in _below(parent, _PARAGRAPH, _TABLE):
            if element.tag == _TABLE:
                yield from ((row, None) for row in self._rows(element))
                continue
            style = element.find(_path("pPr", "pStyle"))
            if not self._is_styled_away(style):
                level = None if style is None else self._levels.get(style.get(qn("w:val")))
                yield Section(self._numbers.next(element) + "".join(self._texts(element))), level
            for box in _below(element, _TEXT_BOX):
                yield from self.sections(box)

    def _rows(self, table: BaseOxmlElement) -> Iterator[Section]:
        """Each row; a cell that is merged over several is told in each of them."""
        above: dict[int, str] = {}
        for row in _below(table, _ROW):
            texts, column = dict[int, str](), 0
            for cell in _below(row, _CELL):
                merge, span = cell.find(_path("tcPr", "vMerge")), cell.find(_path("tcPr", "gridSpan"))
                is_merged = merge is not None and merge.get(qn("w:val"), "continue") == "continue"
                own = " ".join(section.text for section, _ in self.sections(cell))
                texts[column] = above.get(column, own) if is_merged else own
                column += 1 if span is None else int(span.get(qn("w:val"), "1"))
            above = texts
            yield Section(", ".join(text for text in texts.values() if text.strip()))

    def _texts(self, parent: BaseOxmlElement) -> Iterator[str]:
        for element in parent:
            if element.tag in _TEXTS:
                yield element.text or ""
            elif element.tag in _CHARACTERS:
                yield _CHARACTERS[element.tag]
            elif not (element.tag in _NO_TEXT or element.tag == _TEXT_BOX or self._is_hidden(element)):
                yield from self._texts(element)

    def _is_hidden(self, element: BaseOxmlElement) -> bool:
        if element.tag != _RUN:
            return False
        vanish = element.find(_path("rPr", "vanish"))
        return self._is_styled_away(element.find(_path("rPr", "rStyle"))) if vanish is None else _is_on(vanish)

    def _is_styled_away(self, style: BaseOxmlElement | None) -> bool:
        return style is not None and style.get(qn("w:val")) in self._hiding


def _below(parent: BaseOxmlElement, *tags: str) -> Iterator[BaseOxmlElement]:
    """The closest elements with these tags, through content controls, insertions and the like."""
    for element in parent:
        if element.tag in tags:
            yield element
        elif element.tag not in _NO_TEXT:
            yield from _below(element, *tags)


def _level_of(style: BaseOxmlElement) -> int | None:
    """The level of the headings that have a style; Word names its own in English, whatever its language."""
    name = style.find(qn("w:name"))
    named = _HEADING.fullmatch("" if name is None else str(name.get(qn("w:val"))).lower())
    return named and (int(named[1]) if named[1] else TITLE)


def _path(*names: str) -> str:
    return "/".join(qn(f"w:{name}") for name in names)


def _is_on(switch: BaseOxmlElement | None) -> bool:
    return switch is not None and switch.get(qn("w:val"), "true") not in ("0", "false", "off")
