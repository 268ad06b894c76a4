"""A piece of a document: what is searched, and what the user model sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        text: without markup, never empty; its headings are not in it.
        source: the file.
        line: of the paragraph it stands in, from 1; None where the format has no lines.
        page: from 1; None where the format has no pages.
        heading: the headings that it stands under, the outermost first, joined by ": "; empty if there is none.
        sheet: the name of the sheet of a workbook; empty elsewhere.
        slide: from 1; None where the format has no slides.
        is_cut: whether sentences of it were left out to make it fit.
    """

    text: str
    source: Path
    line: int | None = None
    page: int | None = None
    heading: str = ""
    sheet: str = ""
    slide: int | None = None
    is_cut: bool = False

    @property
    def told(self) -> str:
        """The text as the user model is given it, behind its headings: alone it may not say what it is about."""
        return f"{self.heading}: {self.text}" if self.heading else self.text

    @property
    def place(self) -> str:
        """Place to look it up: the file's name with page, slide, sheet and row, or line."""
        if self.page is not None:
            return f"{self.source.name}, page {self.page}"
        if self.slide is not None:
            return f"{self.source.name}, slide {self.slide}"
        if self.sheet:
            return f"{self.source.name}, sheet {self.sheet}{'' if self.line is None else f', row {self.line}'}"
        return self.source.name if self.line is None else f"{self.source.name}:{self.line}"


class NothingFound(list[Passage]):
    """No passage, though documents were searched: none of theirs seems to be about the question."""


def told_in_order(passages: Iterable[Passage]) -> list[str]:
    """Tell passages one behind the other, as the user model is given them.

    The headings that a passage shares with the one before it, of the same file, are not told again: a document in its
    order is told about as long as it is.
    """
    told, before = list[str](), (Path(), list[str]())
    for passage in passages:
        path = passage.heading.split(": ") if passage.heading else []
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(before[1], path, strict=False))
        shared = sum(1 for _ in pairs) if passage.source == before[0] else 0
        if shared == len(path) < len(before[1]):
            shared = max(0, shared - 1)  # else it would seem to stand under the inner heading before it
        told.append(": ".join([*path[shared:], passage.text]))
        before = passage.source, path
    return told
