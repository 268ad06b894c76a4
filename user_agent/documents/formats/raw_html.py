"""HTML inside Markdown, a tag or a block at a time: which text between the tags is seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

from markdown_it.common.html_blocks import block_names

from user_agent.documents.formats.look import Look, look_of
from user_agent.documents.formats.section import Section
from user_agent.documents.formats.web_page import INLINE, blocks

_TAG = re.compile(r"</?([a-z][a-z0-9-]*)", re.IGNORECASE)
_VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))
_OTHERS = ("audio", "button", "canvas", "meter", "object", "output", "picture", "pre", "progress", "rp", "rt", "ruby")
_KNOWN = INLINE | _VOID | {*block_names, *_OTHERS, "script", "select", "style", "svg", "template", "textarea", "video"}
_FLAGS = frozenset(("checked", "controls", "disabled", "download", "hidden", "inert", "open", "reversed", "selected"))
_NEVER_SHOWN = ("script", "style", "template")


class RawHTML(HTMLParser):
    """The elements that are open at a place of a Markdown text."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, str, Look]] = []  # name, start tag, look
        self._is_markup = True

    @property
    def is_seen(self) -> bool:
        """Whether text at this place is seen."""
        return self._around.is_seen

    @property
    def depth(self) -> int:
        """How many elements are open."""
        return len(self._open)

    def text_of(self, tag: str, paragraph: str) -> str:
        """What a reader sees of a tag in a paragraph: nothing, a line's end, or the tag if it is none of HTML's.

        "ssh <user>@<host>" is prose, and so is "if a <b and c> d".
        """
        name = _name(tag)
        if not name:
            return ""
        if name in _NEVER_SHOWN and not re.search(f"</{name}\\s*>", paragraph, re.IGNORECASE):
            return tag  # a word on the tag, as nothing ends it
        self._feed(tag)
        if not self._is_markup:
            return tag
        return " " if name == "br" else ""

    def block(self, html: str, line: int) -> Iterator[Section]:
        """What a reader sees of a block of HTML that begins on a line."""
        around = "".join(tag.replace("\n", " ") for _, tag, _ in self._open)
        for section in blocks(around + html):
            yield replace(section, line=line + (section.line or 1) - 1)
        self._feed(html)
        names = [name for name, _, _ in self._open]
        self.close_to(names.index("p") if "p" in names else len(names))  # the next block ends a paragraph

    def close_to(self, depth: int) -> None:
        """Close elements until so many are open."""
        del self._open[depth:]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element, if it can hold text."""
        attributes = dict(reversed(attrs))  # of an attribute that is given twice browsers take the first
        look = look_of(tag, attributes, self._around, {})
        is_prose = any(value is None and name not in _FLAGS for name, value in attrs)
        self._is_markup = (tag in _KNOWN and not is_prose) or not look.is_seen
        if self._is_markup and tag not in _VOID:
            self._open.append((tag, self.get_starttag_text() or "", look))

    def handle_endtag(self, tag: str) -> None:
        """Close the element and those in it; nothing if there is none."""
        names = [name for name, _, _ in self._open]
        self._is_markup = tag in _KNOWN or tag in names
        if tag in names:
            self.close_to(len(names) - 1 - names[::-1].index(tag))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take <p/> for <p>, as browsers do."""
        self.handle_starttag(tag, attrs)

    @property
    def _around(self) -> Look:
        return self._open[-1][2] if self._open else Look()

    def _feed(self, html: str) -> None:
        self.reset()
        self.feed(html)


def is_html(block: str) -> bool:
    """Whether a block that CommonMark takes for HTML is: its first tag is known, and what hides the rest ends."""
    name = _name(block)
    return not name or (name in _KNOWN and (name not in _NEVER_SHOWN or f"</{name}" in block.lower()))


def _name(tag: str) -> str:
    match = _TAG.match(tag.lstrip())
    return match[1].lower() if match else ""
