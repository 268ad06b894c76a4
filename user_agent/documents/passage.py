"""A piece of a document: what is searched, and what the user model sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        text: without markup, never empty.
        source: the file.
        line: of the paragraph it stands in, from 1; None where the format has no lines.
        page: from 1; None where the format has no pages.
        is_cut: whether sentences of it were left out to make it fit.
    """

    text: str
    source: Path
    line: int | None = None
    page: int | None = None
    is_cut: bool = False

    @property
    def place(self) -> str:
        """Place to look it up: the file's name with page or line."""
        if self.page is not None:
            return f"{self.source.name}, page {self.page}"
        return self.source.name if self.line is None else f"{self.source.name}:{self.line}"
