"""Plain text: a paragraph is a line, or the lines that an editor wrapped it into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

WRAPPED_CHARACTERS = 60
"""A line that is at least so long and ends in the middle of a sentence was wrapped; a shorter one ends by itself."""

_ITEM = re.compile(r"\s*(?:[-*+>•]|\d+[.)])\s")
_QUOTE = re.compile(r"\s*((?:> ?)+(?<= ))(?=\S)")
_LINE_END = re.compile("\r\n|\r|\n")
_SENTENCE_ENDS = (".", "!", "?", ":", ";")
_ENTRY_END = re.compile(r"(?:\d|\S@\S+|://\S+)$")  # a number or an address


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs, with their lines."""
    return paragraphs(enumerate(lines_of(decode(data)), start=1), has_quotes=True)


def lines_of(text: str) -> list[str]:
    """The lines as editors count them: unlike `str.splitlines`, no form feed or other separator ends one."""
    return _LINE_END.split(text)


def paragraphs(lines: Iterable[tuple[int, str]], *, has_quotes: bool = False) -> Iterator[Section]:
    """Lines put together where one was wrapped, so that no sentence is cut at a line's end.

    Args:
        lines: numbered from 1; an empty one ends a paragraph.
        has_quotes: "> " in front of lines quotes them, and is told once a paragraph.
    """
    begun, quoted, parts = 0, "", list[str]()
    for number, line in lines:
        mark, text = _unquoted(line) if has_quotes else ("", line.strip())
        if parts and not (mark.count(">") == quoted.count(">") and _goes_on(parts[-1], text)):
            yield Section(quoted + " ".join(parts), line=begun)
            parts = []
        if not parts:
            begun, quoted = number, mark
        if text:
            parts.append(text)
    if parts:
        yield Section(quoted + " ".join(parts), line=begun)


def _unquoted(line: str) -> tuple[str, str]:
    """The marks of a quotation in front of a line, and the line without them."""
    match = _QUOTE.match(line)
    return (match[1], line[match.end() :].strip()) if match else ("", line.strip())


def _goes_on(line: str, below: str) -> bool:
    """Tell whether the line was wrapped, and goes on in the one below."""
    if len(line) < WRAPPED_CHARACTERS or line.endswith(_SENTENCE_ENDS) or not below or _ITEM.match(below):
        return False
    return not (below[0].isupper() and _ENTRY_END.search(line))  # two entries of a list, not a sentence
