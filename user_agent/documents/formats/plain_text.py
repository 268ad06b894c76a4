"""Plain text: a paragraph is a line, or the lines that an editor wrapped it into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

WRAPPED_CHARACTERS = 60
"""A line that is at least so long and ends in the middle of a sentence was wrapped; a shorter one ends by itself."""

ITEM = re.compile(r"\s*(?:[-*+>•]|\d+[.)])\s")
_ENDS = (".", "!", "?", ":", ";")


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs, with their lines."""
    return paragraphs(enumerate(decode(data).splitlines(), start=1))


def paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[Section]:
    """Lines put together where one was wrapped, so that no sentence is cut at a line's end.

    Args:
        lines: numbered from 1; an empty one ends a paragraph.
    """
    begun, parts = 0, list[str]()
    for number, line in lines:
        if parts and not (_was_wrapped(parts[-1]) and line.strip() and not ITEM.match(line)):
            yield Section(" ".join(parts), line=begun)
            parts = []
        if not parts:
            begun = number
        if line.strip():
            parts.append(line.strip())
    if parts:
        yield Section(" ".join(parts), line=begun)


def _was_wrapped(line: str) -> bool:
    return len(line) >= WRAPPED_CHARACTERS and not line.endswith(_ENDS)
