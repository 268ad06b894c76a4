"""PDF: its pages, by PDFium.

Invisible text is read too: it is how a scan that was read by OCR holds its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pypdfium2

from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable

_MARKER_BYTES = 1024  # how far from the file's ends the format lets its markers stand
_SOFT_HYPHEN = re.compile("\xad(?:\r\n)?")
_HYPHEN = re.compile("[\x02\ufffe](?:\r\n)?(.?)")  # how PDFium tells a hyphen at a line's end


def sections(data: bytes) -> Iterator[Section]:
    """The pages that have text."""
    if b"%PDF-" not in data[:_MARKER_BYTES]:
        raise DocumentsUnreadable("is not a PDF, despite its name; rename it")
    if b"%%EOF" not in data[-_MARKER_BYTES:]:
        raise DocumentsUnreadable("is truncated (the end of the PDF is missing); copy or download it again")
    try:
        document = pypdfium2.PdfDocument(data)
        for number in range(len(document)):
            yield Section(_joined(_text(document, number)), page=number + 1)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentsUnreadable("is protected by a password; save it without one") from error
        raise DocumentsUnreadable(f"is a damaged PDF ({error}); save it again") from error


def _text(document: pypdfium2.PdfDocument, number: int) -> str:
    page = document[number]
    try:
        return str(page.get_textpage().get_text_bounded())
    finally:
        page.close()


def _joined(text: str) -> str:
    """One line: PDF has no paragraphs, and a line's end is in the middle of a sentence more often than not."""
    return " ".join(_HYPHEN.sub(_uncut, _SOFT_HYPHEN.sub("", text)).split())


def _uncut(hyphen: re.Match[str]) -> str:
    """Put a word together; before a digit or a capital, as in Covid-19, the hyphen belongs to it."""
    return hyphen[1] if hyphen[1].islower() else f"-{hyphen[1]}"
