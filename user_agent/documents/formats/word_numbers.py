"""The numbers that Word shows before the items of a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import ascii_lowercase

from docx.document import Document
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement

_PART = re.compile(r"%(\d)")
_ROMAN = (
    *((500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v")),
    *((4, "iv"), (1, "i")),
)
_LARGEST = 500  # that letters and Roman numerals are made for


def _letters(number: int) -> str:
    """Letters as Word counts: a to z, then aa to zz."""
    return ascii_lowercase[(number - 1) % 26] * ((number - 1) // 26 + 1)


def _roman(number: int) -> str:
    text = ""
    for value, sign in _ROMAN:
        text += sign * (number // value)
        number %= value
    return text


_SIGNS: Mapping[str, Callable[[int], str]] = {
    "decimal": str,
    "lowerLetter": _letters,
    "upperLetter": lambda number: _letters(number).upper(),
    "lowerRoman": _roman,
    "upperRoman": lambda number: _roman(number).upper(),
}


@dataclass(frozen=True)
class _List:
    """A list as the document defines it.

    Attributes:
        definition: lists of one definition go on counting where another of them ended.
        levels: by their depth, from 0.
        starts: where the list itself begins to count, by depth.
    """

    definition: str = ""
    levels: Mapping[int, BaseOxmlElement] = field(default_factory=dict)
    starts: Mapping[int, int] = field(default_factory=dict)


class Numbers:
    """The counters of a document's lists, moved on by each item in its order."""

    def __init__(self, document: Document) -> None:
        styles = document.styles.element.iterchildren(qn("w:style"))
        self._styles = {style.get(qn("w:styleId")): style for style in styles}
        self._lists = _lists_of(document)
        self._counted: dict[str, dict[int, int]] = {}
        self._begun = set[str]()

    def next(self, paragraph: BaseOxmlElement) -> str:
        """Return what stands before the paragraph, with a space; nothing if it is no item or has a bullet."""
        number, depth = self._item(paragraph)
        found = self._lists.get(number, _List())
        levels = found.levels
        if depth not in levels:
            return ""
        counted = self._counted.setdefault(found.definition, {})
        if number not in self._begun:
            self._begun.add(number)
            counted.update({level: start - 1 for level, start in found.starts.items()})
        for deeper in [each for each in counted if each > depth]:
            del counted[deeper]
        for level in (each for each in levels if each <= depth):
            counted.setdefault(level, _whole(_value(levels[level], "start"), 1) - (level == depth))
        counted[depth] += 1
        if _value(levels[depth], "numFmt") not in _SIGNS:
            return ""
        return f"{_PART.sub(lambda part: _sign(levels, counted, int(part[1]) - 1), _value(levels[depth], 'lvlText'))} "

    def _item(self, paragraph: BaseOxmlElement) -> tuple[str, int]:
        """The list and the level that the paragraph names, or its style, or one that this is based on."""
        number = level = ""
        element: BaseOxmlElement | None = paragraph
        style, seen = _value(paragraph, "pPr", "pStyle"), set[str]()
        while element is not None:
            number = number or _value(element, "pPr", "numPr", "numId")
            level = level or _value(element, "pPr", "numPr", "ilvl")
            if style in seen:
                break
            seen.add(style)
            element = self._styles.get(style)
            style = "" if element is None else _value(element, "basedOn")
        return number, _whole(level, 0)


def _lists_of(document: Document) -> dict[str, _List]:
    """The lists, by their numbers."""
    related = (each for each in document.part.rels.values() if not each.is_external)
    parts = (each.target_part for each in related if each.reltype == RELATIONSHIP_TYPE.NUMBERING)
    root = getattr(next(parts, None), "element", None)
    if root is None:
        return {}
    definitions = {each.get(qn("w:abstractNumId")): _levels(each) for each in root.iterchildren(qn("w:abstractNum"))}
    return {each.get(qn("w:numId")): _list_of(each, definitions) for each in root.iterchildren(qn("w:num"))}


def _list_of(element: BaseOxmlElement, definitions: Mapping[str, Mapping[int, BaseOxmlElement]]) -> _List:
    definition = _value(element, "abstractNumId")
    levels, starts = dict(definitions.get(definition, {})), dict[int, int]()
    for change in element.iterchildren(qn("w:lvlOverride")):
        levels.update(_levels(change))
        if start := _value(change, "startOverride"):
            starts[_whole(change.get(qn("w:ilvl"), ""), 0)] = _whole(start, 1)
    return _List(definition, levels, starts)


def _levels(parent: BaseOxmlElement) -> dict[int, BaseOxmlElement]:
    return {_whole(level.get(qn("w:ilvl"), ""), 0): level for level in parent.iterchildren(qn("w:lvl"))}


def _sign(levels: Mapping[int, BaseOxmlElement], counted: Mapping[int, int], depth: int) -> str:
    number = counted.get(depth, 0)
    kind = _value(levels[depth], "numFmt") if depth in levels else ""
    return _SIGNS.get(kind, str)(number) if 0 < number <= _LARGEST else str(number)


def _value(element: BaseOxmlElement, *path: str) -> str:
    found = element.find("/".join(qn(f"w:{name}") for name in path))
    return "" if found is None else str(found.get(qn("w:val"), ""))


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else otherwise
