"""HTML: its blocks, without what a reader of the page does not see.

Not read: what stands in attributes, as the values of a form's fields and the texts for pictures that cannot be shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import CData, NavigableString, Tag

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.look import Look, classes_of, look_of
from user_agent.documents.formats.section import Section

INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd"),
        *("label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u"),
        *("tspan", "var", "wbr"),
    )
)


def sections(data: bytes) -> Iterator[Section]:
    """The blocks, with their lines; the encoding is the declared one, else UTF-8."""
    return blocks(decode(data, EncodingDetector.find_declared_encoding(data, is_html=True)))


def blocks(html: str) -> Iterator[Section]:
    """What stands between the borders of block elements, each with its line."""
    # Of an attribute that is given twice browsers take the first.
    page = BeautifulSoup(html, "html.parser", multi_valued_attributes=None, on_duplicate_attribute="ignore")
    block: Tag | None = None
    parts: list[str] = []
    for node in _seen(page):
        is_border = node.name not in INLINE if isinstance(node, Tag) else _block_of(node) is not block
        if is_border and parts:
            yield from _section(parts, block)
            parts = []
        if not isinstance(node, Tag):
            block = _block_of(node)
            parts.append(str(node))
    yield from _section(parts, block)


def _seen(page: BeautifulSoup) -> Iterator[Tag | NavigableString]:
    """The elements and texts that a reader sees; an element that is not shown ends no line either."""
    sheet = classes_of(style.get_text() for style in page.find_all("style"))
    looks: dict[int, Look] = {id(page): Look()}
    for node in page.descendants:
        around = looks[id(node.parent)]
        if isinstance(node, Tag):
            looks[id(node)] = look = look_of(node.name, node.attrs, around, sheet)
            if not look.is_gone:
                yield node
        elif isinstance(node, NavigableString) and type(node) in (NavigableString, CData) and around.is_seen:
            yield node


def _section(parts: list[str], block: Tag | None) -> Iterator[Section]:
    text = " ".join("".join(parts).split())
    if text:
        yield Section(text, line=block.sourceline if block else None)


def _block_of(node: object) -> Tag | None:
    """The closest element around a text that is no part of a line."""
    parent = getattr(node, "parent", None)
    while isinstance(parent, Tag) and parent.name in INLINE:
        parent = parent.parent
    return parent
