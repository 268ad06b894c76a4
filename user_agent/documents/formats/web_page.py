"""HTML: its blocks and the rows of its tables, without what a reader of the page does not see.

Not read: what stands in attributes, as the values of a form's fields and the texts for pictures that cannot be shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import CData, NavigableString, RubyTextString, Tag

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.headings import TITLE, Leveled, under_headings
from user_agent.documents.formats.look import Look, look_of, styles_of
from user_agent.documents.formats.section import Section

INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd"),
        *("label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u"),
        *("tspan", "var", "wbr"),
    )
)
"""The elements that format words: tags of these names are markup in Markdown as well."""

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
# Elements that begin and end lines; every other, known or not, is part of one.
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog"),
        *("dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "head", "header", "hgroup"),
        *("hr", "html", "legend", "li", "listing", "main", "menu", "nav", "ol", "p", "plaintext", "pre", "search"),
        *("section", "summary", "table", "tbody", "td", "text", "tfoot", "th", "thead", "title", "tr", "ul", "xmp"),
        *_HEADINGS,
    )
)
_APART = frozenset(("option", "optgroup", "rt", "textarea"))  # part of a line, but never of the word beside them
_CELLS = ("td", "th", "dt", "dd")
_TEXTS = (NavigableString, CData, RubyTextString)


def sections(data: bytes) -> Iterator[Section]:
    """The blocks, with their lines; the encoding is the declared one, else UTF-8."""
    return under_headings(blocks(decode(data, EncodingDetector.find_declared_encoding(data, is_html=True))))


def blocks(html: str, around: Look = Look(), line: int = 1) -> Iterator[Leveled]:  # noqa: B008  it never changes
    """Yield what stands between the borders of block elements, each with its line; a row of a table is told as one.

    Headings and the page's title are told with their levels.

    Args:
        html: a page, or a part of one.
        around: the look of the element that the part is in.
        line: the number of its first line.
    """
    # Of an attribute that is given twice browsers take the first.
    page = BeautifulSoup(html, "html.parser", multi_valued_attributes=None, on_duplicate_attribute="ignore")
    places, passage, number = _Places(page), _Passage(), _Number()
    for node in _seen(page, around):
        place = places.of(node)
        is_item, is_text = node.name == "li", not isinstance(node, Tag) and bool(node.strip())
        if number.text and (is_item if place.items is number.items else is_text):
            yield Section(number.text, line=line + number.line - 1), None  # of an item without text
            number = _Number()
        if isinstance(node, Tag) and is_item:
            number = _Number(number.text + places.number_of(node), place.items, node.sourceline or 1)
        if place.whole is not passage.place.whole or (place.whole is None and _is_border(node, place, passage.place)):
            yield from passage.section(line)
            passage = _Passage()
        if is_text:
            passage.add(number.text, place)
            number = _Number()
        passage.add(_text_of(node), place)
    yield from passage.section(line)


@dataclass(frozen=True)
class _Place:
    """Place of an element or a text.

    Attributes:
        block: the closest element around a text that is no part of a line.
        whole: the row, or the first of the terms with their descriptions, that is told as one.
        cell: the part of that whole.
        items: the list.
        heading: the heading, or the title of the page.
    """

    block: Tag | None = None
    whole: Tag | None = None
    cell: Tag | None = None
    items: Tag | None = None
    heading: Tag | None = None


@dataclass(frozen=True)
class _Number:
    """The number of an item whose text is still to come."""

    text: str = ""
    items: Tag | None = None
    line: int = 1


@dataclass
class _Passage:
    """The texts of a passage, by their cells; all in one where it is no row."""

    place: _Place = _Place()
    cells: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, text: str, place: _Place) -> None:
        """Put a text behind the others."""
        name = place.cell.name if place.cell else ""
        if not self.cells or place.cell is not self.place.cell:
            self.cells.append((name, []))
        elif place.block is not self.place.block:
            self.cells[-1][1].append(" ")
        self.cells[-1][1].append(text)
        self.place = place

    def section(self, line: int) -> Iterator[Leveled]:
        """Yield the section with its level, if there is text in it; the page begins on a line."""
        told, before = "", ""
        for name, parts in self.cells:
            if text := " ".join("".join(parts).split()):
                between = ": " if (before, name) == ("dt", "dd") else ", "
                told, before = f"{told}{between if told else ''}{text}", name
        if told:
            origin = self.place.whole or self.place.block
            heading = None if self.place.whole else self.place.heading
            level = None if heading is None else TITLE if heading.name == "title" else int(heading.name[1])
            yield Section(told, line=line + ((origin and origin.sourceline) or 1) - 1), level


class _Places:
    """The places of the nodes that are seen, told in the order of the page."""

    def __init__(self, page: BeautifulSoup) -> None:
        self._places: dict[int, _Place] = {id(page): _Place()}
        self._layout, self._rows = _layout_of(page), _rows_of(page)
        self._numbers: dict[int, int] = {}

    def of(self, node: Tag | NavigableString) -> _Place:
        """The place of a text, or the one of the texts in an element."""
        place = self._places[id(node.parent)]
        if isinstance(node, Tag):
            self._places[id(node)] = place = self._within(node, place)
        return place

    def number_of(self, item: Tag) -> str:
        """Return what stands before an item of an ordered list, counted from the list's or the item's own number."""
        items = self._places[id(item)].items
        if items is None or items.name != "ol" or items.get("type", "1") != "1":
            return ""
        before = self._numbers.get(id(items), _whole_number(items.get("start"), 1) - 1)
        self._numbers[id(items)] = number = _whole_number(item.get("value"), before + 1)
        return f"{number}. "

    def _within(self, element: Tag, around: _Place) -> _Place:
        if element.name not in _BLOCKS:
            return around
        place = replace(around, block=element)
        if element.name in (*_HEADINGS, "title"):
            return replace(place, heading=element)
        if element.name in ("ol", "ul", "menu", "dir"):
            return replace(place, items=element)
        if element.name == "table" or (element.name in ("tr", "dd") and id(element) in self._layout):
            return replace(place, whole=None, cell=None)
        if element.name == "tr":
            return replace(place, whole=element if id(element) in self._rows else None, cell=None)
        if element.name in ("dt", "dd"):
            return replace(place, whole=self._described(element, around), cell=element)
        return replace(place, cell=element) if element.name in _CELLS and around.whole else place

    def _described(self, element: Tag, around: _Place) -> Tag | None:
        """The first of the terms that a term or a description belongs to."""
        before = element.find_previous_sibling(True)
        is_beside = isinstance(before, Tag) and before.name in ("dt", element.name) and id(before) in self._places
        if is_beside and before is not None:
            return self._places[id(before)].whole
        return element if element.name == "dt" else around.whole


def _layout_of(page: BeautifulSoup) -> set[int]:
    """The elements around what no cell holds: a row or description there puts parts of the page beside each other."""
    around = set[int]()
    for element in page.find_all(("table", "dl", "pre", *_HEADINGS)):
        for parent in element.parents:
            if id(parent) in around:
                break
            around.add(id(parent))
    return around


def _rows_of(page: BeautifulSoup) -> set[int]:
    """The rows of more than one cell."""
    rows: dict[int, Tag | None] = {}
    cells = Counter[int]()
    for element in page.find_all(True):
        row = rows.get(id(element.parent))
        rows[id(element)] = element if element.name == "tr" else row
        if row is not None and element.name in ("td", "th"):
            cells[id(row)] += 1
    return {row for row, count in cells.items() if count > 1}


def _seen(page: BeautifulSoup, around: Look) -> Iterator[Tag | NavigableString]:
    """Yield the elements and texts that a reader sees; an element that is not shown ends no line either."""
    sheet = styles_of(style.get_text() for style in page.find_all("style"))
    looks: dict[int, Look] = {id(page): around}
    for node in page.descendants:
        around = looks[id(node.parent)]
        if isinstance(node, Tag):
            looks[id(node)] = look = look_of(node.name, node.attrs, around, sheet)
            if not look.is_gone:
                yield node
        elif isinstance(node, NavigableString) and type(node) in _TEXTS and around.is_seen:
            yield node


def _is_border(node: Tag | NavigableString, place: _Place, before: _Place) -> bool:
    return node.name in _BLOCKS if isinstance(node, Tag) else place.block is not before.block


def _text_of(node: Tag | NavigableString) -> str:
    if isinstance(node, Tag):
        return " " if node.name in _APART or node.name == "br" else ""
    is_apart = node.parent is not None and node.parent.name in _APART
    return f"{node} " if is_apart else str(node)


def _whole_number(value: object, otherwise: int) -> int:
    try:
        return int(str(value))
    except ValueError:
        return otherwise
