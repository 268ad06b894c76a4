"""HTML inside Markdown, a tag or a block at a time: which text between the tags is seen.

A tag is markup if its element ends, and text if nothing ends it: "cp <source> <target>" is prose, and a line that is
only "<video>" must not hide the rest of the file. Tags that hide nothing may go without: <br>, <a name="x">, and in a
block those that HTML ends by itself, as <li>.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from html.parser import HTMLParser
from typing import TypeVar

from markdown_it.common.html_blocks import block_names

from user_agent.documents.formats.headings import Leveled
from user_agent.documents.formats.look import Look, look_of
from user_agent.documents.formats.web_page import INLINE, blocks

_VOID = frozenset(
    (
        *("area", "base", "basefont", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta", "param"),
        *("source", "track", "wbr"),
    )
)
_OTHERS = ("audio", "button", "canvas", "meter", "object", "output", "picture", "pre", "progress", "rp", "rt", "ruby")
_KNOWN = INLINE | _VOID | {*block_names, *_OTHERS, "script", "select", "style", "svg", "template", "textarea", "video"}
_FLAGS = frozenset(("checked", "controls", "disabled", "download", "hidden", "inert", "open", "reversed", "selected"))
_BREAKS = frozenset(("br", "hr", "wbr"))
_ENDS_BY_ITSELF = frozenset(
    ("colgroup", "dd", "dt", "li", "optgroup", "option", "p", "tbody", "td", "tfoot", "th", "thead", "tr")
)
# A tag with "<" in it is none: html.parser would take "<video <b>" for a tag.
_TAG = re.compile(
    r"<!--|<[!?][^<>]*>|<(/?)([a-z][a-z0-9-]*)(?=[\s/>])(?:[^<>\"']|\"[^\"]*\"|'[^']*')*+>", re.IGNORECASE
)
_ENDS = {
    "<!--": re.compile("-->"),
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
}

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Tag:
    """A tag, comment or declaration.

    Attributes:
        text: all of it.
        start: its place in the text around it.
        name: of the element, in lower case; empty if it is no tag.
        is_end: it is an end tag.
    """

    text: str
    start: int = 0
    name: str = ""
    is_end: bool = False


def tags_of(html: str) -> Iterator[Tag]:
    """Yield the tags of a text in their order: none that stand in a comment, a script or a style sheet."""
    at, missing = 0, set[str]()
    while match := _TAG.search(html, at):
        at = match.end()
        kind = (match[2] or match[0]).lower()
        is_raw = kind in _ENDS and not match[1]
        # Each kind is looked for in vain only once: a search from each of many would take the square of the time.
        end = _ENDS[kind].search(html, at) if is_raw and kind not in missing else None
        if is_raw and not end:
            missing.add(kind)
        if kind != "<!--":
            yield Tag(match[0], match.start(), (match[2] or "").lower(), bool(match[1]))
        elif end:
            yield Tag(html[match.start() : end.end()], match.start())
        if end:
            at = end.end() if kind == "<!--" else end.start()


def tag_of(text: str) -> Tag:
    """The tag that a text is; one without a name if it is none."""
    return next(tags_of(text), Tag(text))


def ended(tags: Iterable[tuple[_Key, Tag]]) -> set[_Key]:
    """The keys of the tags whose other half is among them."""
    begun: dict[str, list[_Key]] = {}
    found = set[_Key]()
    for key, tag in tags:
        if not tag.is_end:
            begun.setdefault(tag.name, []).append(key)
        elif begun.get(tag.name):
            found |= {key, begun[tag.name].pop()}
    return found


class RawHTML:
    """The elements that are open at a place of a Markdown text. Only one that ends is ever open."""

    def __init__(self) -> None:
        self._open: list[tuple[str, Look]] = []
        self._depths: dict[str, list[int]] = {}  # where in them each name is

    @property
    def is_seen(self) -> bool:
        """True if text at this place is seen."""
        return self._around.is_seen

    @property
    def depth(self) -> int:
        """The number of open elements."""
        return len(self._open)

    def text_of(self, tag: Tag, *, is_ended: bool) -> str:
        """The text that a reader sees of a tag in a paragraph: nothing, a line's end, or the tag if it is no markup.

        "ssh <user>@<host>" is prose, and so is "if a <b and c> d".
        """
        is_seen = self.is_seen
        is_markup = self._take(tag, is_ended=is_ended, in_block=False)
        if not is_seen:
            return ""
        return tag.text if not is_markup else " " if tag.name == "br" else ""

    def is_html(self, block: str, ends: Set[int]) -> bool:
        """Tell whether a block that CommonMark takes for HTML begins with markup; else it is a paragraph.

        Args:
            block: the text.
            ends: the places of the tags in it whose other half is in the document.
        """
        tag = next(tags_of(block), None)
        if tag is None or block[: tag.start].strip():
            return False
        is_ended = tag.start in ends
        if tag.is_end:
            return is_ended or bool(self._depths.get(tag.name))
        is_known = not tag.name or tag.name in _KNOWN or _hides(tag)
        return is_known and _begins(tag, is_ended=is_ended, in_block=True)

    def block(self, html: str, ends: Set[int], line: int) -> Iterator[Leveled]:
        """Yield what a reader sees of a block of HTML that begins on a line; `ends` is as for `is_html`."""
        parts, at, begin = list[str](), 0, 0
        around, outside = self._around, self.depth
        for tag in tags_of(html):
            parts.append(_as_text(html[at : tag.start]))
            at = tag.start + len(tag.text)
            depths = self._depths.get(tag.name, []) if tag.is_end else []
            is_border = any(depth < outside for depth in depths[-1:])  # what follows has the look of another element
            is_markup = self._take(tag, is_ended=tag.start in ends, in_block=True)
            parts.append(tag.text if is_markup or tag.is_end else _as_text(tag.text))
            if is_border:
                yield from blocks("".join(parts), around, line)
                line += html.count("\n", begin, at)
                parts, begin = [], at
                around, outside = self._around, self.depth
        yield from blocks("".join(parts) + _as_text(html[at:]), around, line)
        if paragraphs := self._depths.get("p"):
            self.close_to(paragraphs[0])  # the next block ends a paragraph

    def close_to(self, depth: int) -> None:
        """Close elements until so many are open."""
        while len(self._open) > depth:
            self._depths[self._open.pop()[0]].pop()

    @property
    def _around(self) -> Look:
        return self._open[-1][1] if self._open else Look()

    def _take(self, tag: Tag, *, is_ended: bool, in_block: bool) -> bool:
        """Open or close the element of a tag; tell whether the tag is markup."""
        if tag.is_end:
            if depths := self._depths.get(tag.name):
                self.close_to(depths[-1])
                return True
            return is_ended and tag.name in _KNOWN
        is_markup = _begins(tag, is_ended=is_ended, in_block=in_block)
        if is_markup and is_ended and tag.name not in _VOID:
            self._depths.setdefault(tag.name, []).append(len(self._open))
            self._open.append((tag.name, look_of(tag.name, dict(_attributes(tag)), self._around, {})))
        return is_markup


def _begins(tag: Tag, *, is_ended: bool, in_block: bool) -> bool:
    """Tell whether a tag, comment or declaration that is no end tag is markup."""
    if not tag.name:
        return True
    attributes = _attributes(tag)
    is_void = tag.name in _VOID
    if is_ended and not is_void and _hides(tag):
        return True
    if any(value is None and name not in _FLAGS for name, value in attributes):
        return False  # words between "<" and ">"
    if is_ended and not is_void:
        return in_block or tag.name in _KNOWN
    has_value = any(value is not None for _, value in attributes)
    if is_void:
        return tag.name in _BREAKS or has_value
    may_stay_open = (in_block and tag.name in _ENDS_BY_ITSELF) or (has_value and (in_block or tag.name in _KNOWN))
    return may_stay_open and not _hides(tag)


def _hides(tag: Tag) -> bool:
    return not look_of(tag.name, dict(_attributes(tag)), Look(), {}).is_seen


class _Attributes(HTMLParser):
    """Reads one start tag."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []
        self.feed(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the attributes, the first of two with the same name last: that is the one that browsers take."""
        self.found = attrs[::-1]


@lru_cache(maxsize=128)  # each tag is asked for them a few times
def _attributes(tag: Tag) -> list[tuple[str, str | None]]:
    return _Attributes(tag.text).found


def _as_text(html: str) -> str:
    return html.replace("<", "&lt;")
