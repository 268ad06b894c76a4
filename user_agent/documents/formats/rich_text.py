"""Rich Text Format: its paragraphs and rows, by striprtf, without what is marked as hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator

from striprtf.striprtf import rtf_to_text

from user_agent.documents.formats.plain_text import lines_of
from user_agent.documents.formats.section import Section
from user_agent.errors import DocumentsUnreadable

_TOKEN = re.compile(r"\\([a-z]{1,32})(-?\d{1,10})?[ ]?|\\'[0-9a-f]{2}|\\[^a-z]|[{}]|[^\\{}]+", re.IGNORECASE)
_CELL_END = "\x1f"
_HIDING = ("v", "deleted")  # hidden, and deleted while changes are tracked
_SHOWN = frozenset(("u", "line", "tab", "emdash", "endash", "bullet", "lquote", "rquote", "ldblquote", "rdblquote"))


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs and the rows of tables."""
    if not data.lstrip().startswith(b"{\\rtf"):
        raise DocumentsUnreadable("is not in Rich Text Format, despite its name; rename it")
    source = data.decode("latin-1")  # it is ASCII; other characters are told with their code page
    text: str = rtf_to_text("".join(_seen(source)), errors="replace")  # type: ignore[no-untyped-call]
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # characters told in two halves
    for line in lines_of(text):
        yield Section(", ".join(filter(str.strip, line.split(_CELL_END))) if _CELL_END in line else line)


def _seen(source: str) -> Iterator[str]:
    """Yield the source without the text that is not shown; the commands around it stay.

    striprtf tells the end of a cell as "|", which the text may have too, so that is marked here.
    """
    hidden, around = frozenset[str](), list[frozenset[str]]()
    for token in _TOKEN.finditer(source):
        word = (token[1] or "").lower()
        if token[0] == "{":
            around.append(hidden)
        elif token[0] == "}":
            hidden = around.pop() if around else hidden
        elif word in _HIDING:
            hidden = hidden - {word} if token[2] == "0" else hidden | {word}
        elif word == "plain":
            hidden = frozenset()
        elif word in ("cell", "nestcell"):
            yield "{}" + _CELL_END  # a brace ends what stands for an older reader in place of a character
            continue
        elif hidden and (not word or word in _SHOWN):
            continue
        yield token[0]
