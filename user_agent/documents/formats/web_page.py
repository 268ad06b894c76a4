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


def blocks(html: str, around: Look = Look(), line: int = 1) -> Iterator[Section]:  # noqa: B008  it never changes
    """Yield what stands between the borders of block elements, each with its line.

    Args:
        html: a page, or a part of one.
        around: the look of the element that the part is in.
        line: the number of its first line.
    """
    # Of an attribute that is given twice browsers take the first.
    page = BeautifulSoup(html, "html.parser", multi_valued_attributes=None, on_duplicate_attribute="ignore")
    block: Tag | None = None
    parts: list[str] = []
    for node, block_of_node in _seen(page, around):
        is_border = node.name not in INLINE if isinstance(node, Tag) else block_of_node is not block
        if is_border and parts:
            yield from _section(parts, block, line)
            parts = []
        if not isinstance(node, Tag):
            block = block_of_node
            parts.append(str(node))
    yield from _section(parts, block, line)


def _seen(page: BeautifulSoup, around: Look) -> Iterator[tuple[Tag | NavigableString, Tag]]:
    """Yield the elements and texts that a reader sees, each with the closest element that is no part of a line.

    An element that is not shown ends no line either.
    """
    sheet = classes_of(style.get_text() for style in page.find_all("style"))
    known: dict[int, tuple[Look, Tag]] = {id(page): (around, page)}
    for node in page.descendants:
        around, block = known[id(node.parent)]
        if isinstance(node, Tag):
            look = look_of(node.name, node.attrs, around, sheet)
            known[id(node)] = (look, block if node.name in INLINE else node)
            if not look.is_gone:
                yield node, block
        elif isinstance(node, NavigableString) and type(node) in (NavigableString, CData) and around.is_seen:
            yield node, block


def _section(parts: list[str], block: Tag | None, line: int) -> Iterator[Section]:
    text = " ".join("".join(parts).split())
    if text:
        yield Section(text, line=line + ((block and block.sourceline) or 1) - 1)
