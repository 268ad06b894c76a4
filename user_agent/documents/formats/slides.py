"""PowerPoint's .pptx: the texts, tables and notes of its slides, under their titles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pptx
from pptx.exc import PackageNotFoundError

from user_agent.documents.formats.archive import check_archive
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and rows of each slide that is shown, with its title as their heading; then its notes."""
    check_archive(data, "a PowerPoint presentation", ".pptx")
    try:
        slides = pptx.Presentation(io.BytesIO(data)).slides
    except (KeyError, ValueError, PackageNotFoundError, zipfile.BadZipFile) as error:
        raise DocumentsUnreadable(f"is not a PowerPoint presentation ({error}); save it as .pptx again") from error
    for number, slide in enumerate(slides, start=1):
        if slide.element.get("show") in ("0", "false"):
            continue
        title = slide.shapes.title
        heading = "" if title is None else " ".join(title.text_frame.text.split())
        texts = [*_texts(slide.shapes, title), *_notes(slide)]
        for text in texts or [heading]:  # a title is all that a slide with a picture says
            yield Section(text, heading=heading if texts else "", slide=number)


def _texts(shapes: Any, title: Any) -> Iterator[str]:
    """Yield paragraphs and rows, those of groups too."""
    for shape in shapes:
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if _is_hidden(shape):
            continue
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes, title)
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                cells = (" ".join(cell.text_frame.text.split()) for cell in row.cells if not cell.is_spanned)
                yield ", ".join(filter(None, cells))
        elif shape.has_text_frame:
            yield from filter(str.strip, (_text(paragraph) for paragraph in shape.text_frame.paragraphs))


def _notes(slide: Any) -> Iterator[str]:
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        for paragraph in slide.notes_slide.notes_text_frame.paragraphs:
            if text := _text(paragraph).strip():
                yield f"Notes: {text}"


def _text(paragraph: Any) -> str:
    """The text of a paragraph; a line break in it is a space."""
    return str(paragraph.text).replace("\v", " ")


def _is_hidden(shape: Any) -> bool:
    return any(each.get("hidden") in ("1", "true") for each in shape.element.xpath("./*/p:cNvPr"))
