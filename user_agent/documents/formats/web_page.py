"""HTML: its blocks, without what a reader of the page does not see."""

from __future__ import annotations

from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import CData, NavigableString, Tag

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.section import Section

_UNSEEN = ("script", "style", "noscript", "template", "svg", "iframe")
_INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd"),
        *("label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u"),
        *("var", "wbr"),
    )
)


def sections(data: bytes) -> Iterator[Section]:
    """The blocks, with their lines; the encoding is the declared one, else UTF-8."""
    return blocks(decode(data, EncodingDetector.find_declared_encoding(data, is_html=True)))


def blocks(html: str) -> Iterator[Section]:
    """What stands between the borders of block elements, each with its line."""
    page = BeautifulSoup(html, "html.parser")
    for unseen in page.find_all(_UNSEEN):
        unseen.extract()
    block: Tag | None = None
    parts: list[str] = []
    for node in page.descendants:
        is_border = node.name not in _INLINE if isinstance(node, Tag) else _block_of(node) is not block
        if is_border and parts:
            yield from _section(parts, block)
            parts = []
        if type(node) in (NavigableString, CData):
            block = _block_of(node)
            parts.append(str(node))
    yield from _section(parts, block)


def _section(parts: list[str], block: Tag | None) -> Iterator[Section]:
    text = " ".join("".join(parts).split())
    if text:
        yield Section(text, line=block.sourceline if block else None)


def _block_of(node: object) -> Tag | None:
    """The closest element around a text that is no part of a line."""
    parent = getattr(node, "parent", None)
    while isinstance(parent, Tag) and parent.name in _INLINE:
        parent = parent.parent
    return parent
