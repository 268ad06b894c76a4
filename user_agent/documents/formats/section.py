"""Sections, which every format is read into, and their division into passages."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

PASSAGE_CHARACTERS = 240
"""A longer section is cut between sentences into passages of about this size."""

_ABBREVIATED = ("Dr", "Mr", "Mrs", "Ms", "Prof", "St", "No", "Nr", "vs", "ca", "approx", "bzw", "e.g", "i.e", "z.B")
_MONTHS = "Jan|Feb|Mar|Mär|Apr|Mai|May|Jun|Jul|Aug|Sep|Okt|Oct|Nov|Dez|Dec"
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)"
    + "".join(rf"(?<!\b{re.escape(word)}\.)" for word in _ABBREVIATED)
    + rf"\s+(?!(?<=\d\.\s)(?:{_MONTHS}))"
)
"""Not behind initials and abbreviations, nor in "3. Mai": a passage cut there would lose a name or a date."""


@dataclass(frozen=True)
class Section:
    """A part of a document whose sentences belong together.

    Attributes:
        text: its text.
        line: where it begins, from 1; None where the format has no lines.
        page: from 1; None where the format has no pages.
        heading: the headings that it stands under, the outermost first, joined by ": "; empty if there is none.
        sheet: the name of the sheet of a workbook; empty elsewhere.
        slide: from 1; None where the format has no slides.
    """

    text: str
    line: int | None = None
    page: int | None = None
    heading: str = ""
    sheet: str = ""
    slide: int | None = None


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; of a doubtful end the two stay one."""
    return _SENTENCE_END.split(text)


def cut(sections: Iterable[Section]) -> Iterator[Section]:
    """Cut sections into pieces of at most `PASSAGE_CHARACTERS`, never empty; white space becomes single spaces."""
    for section in sections:
        yield from (replace(section, text=piece) for piece in _pieces(section.text))


def _pieces(text: str) -> Iterator[str]:
    """Between sentences; a sentence that is longer than a passage, between words."""
    piece = ""
    for sentence in sentences(text):
        for part in _parts(" ".join(sentence.split())):
            if piece and len(piece) + len(part) >= PASSAGE_CHARACTERS:
                yield piece
                piece = ""
            piece = f"{piece} {part}".strip()
    if piece:
        yield piece


def _parts(sentence: str) -> list[str]:
    if len(sentence) <= PASSAGE_CHARACTERS:
        return [sentence]
    return textwrap.wrap(sentence, PASSAGE_CHARACTERS, break_on_hyphens=False)
