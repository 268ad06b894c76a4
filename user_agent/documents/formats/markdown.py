"""Markdown: its paragraphs without markup and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.plain_text import paragraphs
from user_agent.documents.formats.section import Section

_NO_TEXT = re.compile(
    r"\s{0,3}(?:#{1,6}(?:\s|$)|```|~~~|(?:[-=*_]\s*){3,}$|[|:\s-]*\|[|:\s-]*$)"
)  # headings, fences, rules
_MARK = re.compile(r"\s*(?:[-*+]|>)\s+")
_EMPHASIS = re.compile(r"(\*\*|__|`)(\S.*?\S|\S)\1")
_LINK = re.compile(r"!?\[([^\[\]]+)\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs, with their lines."""
    lines = enumerate(decode(data).splitlines(), start=1)
    found = paragraphs((number, "" if _NO_TEXT.match(line) else line) for number, line in lines)
    return (Section(_plain(section.text), line=section.line) for section in found)


def _plain(text: str) -> str:
    """Without list marks and emphasis; of a link its text and address."""
    return _LINK.sub(r"\1 (\2)", _EMPHASIS.sub(r"\2", _MARK.sub("", text, count=1)))
