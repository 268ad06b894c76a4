"""The looks of elements of HTML, as seen or not: by their names, attributes and styles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

# What browsers display only on demand or never: https://html.spec.whatwg.org/multipage/rendering.html#hidden-elements
_UNSEEN = frozenset(
    (
        *("area", "audio", "base", "basefont", "canvas", "datalist", "defs", "desc", "iframe", "link", "meta"),
        *("metadata", "noembed", "noframes", "noscript", "param", "rp", "script", "style", "symbol", "template"),
        "video",
    )
)
_HIDING = {
    "display": re.compile("none"),
    "mso-hide": re.compile("all"),
    "opacity": re.compile(r"(?:0+(?:\.0+)?|\.0+)%?"),
}
_ZERO_SIZE = re.compile(r"(?:0+(?:\.0+)?|\.0+)(?:%|[a-z]+)?")
_OWN_SIZE = re.compile(r"[\d.]+(?:px|pt|pc|cm|mm|in|rem|vw|vh|q)|[a-z-]+")  # others are shares of the parent's size
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_MARK = re.compile(r"([{};])")
_CLASS = re.compile(r"\.([\w-]+)")

Styles = Mapping[str, str]


@dataclass(frozen=True)
class Look:
    """The look that an element's text takes over from the elements around it.

    Attributes:
        is_gone: the element is not shown, and nothing in it can be.
        is_invisible: its text is not shown, unless an element in it sets `visibility` again.
        is_tiny: its text has size 0, unless an element in it sets a size again.
        is_transparent: its text has no color, unless an element in it sets one again.
        is_picture: it is in an SVG, where a title is no text.
    """

    is_gone: bool = False
    is_invisible: bool = False
    is_tiny: bool = False
    is_transparent: bool = False
    is_picture: bool = False

    @property
    def is_seen(self) -> bool:
        """True if a reader sees the text."""
        return not (self.is_gone or self.is_invisible or self.is_tiny or self.is_transparent)


def look_of(name: str, attributes: Mapping[str, object], around: Look, sheet: Mapping[str, Styles]) -> Look:
    """The look of an element in an element that looks like `around`.

    Args:
        name: of the element, in lower case.
        attributes: of it.
        around: the look of its parent.
        sheet: the styles of classes, as `classes_of` gives them.
    """
    if around.is_gone:
        return around
    styles = _own_styles(attributes, sheet)
    look = around if name != "svg" else replace(around, is_picture=True)
    if visibility := styles.get("visibility"):
        look = replace(look, is_invisible=visibility in ("hidden", "collapse"))
    if size := styles.get("font-size"):
        is_tiny = bool(_ZERO_SIZE.fullmatch(size)) or (look.is_tiny and not _OWN_SIZE.fullmatch(size))
        look = replace(look, is_tiny=is_tiny)
    if color := styles.get("color"):
        look = replace(look, is_transparent=color == "transparent")
    return replace(look, is_gone=True) if _is_gone(name, attributes, styles, look) else look


def classes_of(sheets: Iterable[str]) -> dict[str, Styles]:
    """The styles that style sheets set for a class on its own, as in `.preheader { display: none }`.

    A class that a longer selector names too, as in `.tab.open`, is left out: which elements that selects is not known,
    and to hide what a reader sees is worse than to show what none sees. So are rules for some media.
    """
    simple: dict[str, dict[str, str]] = {}
    others = set[str]()
    for selectors, styles in _rules("\n".join(sheets)):
        for selector in selectors.split(","):
            if found := _CLASS.fullmatch(selector.strip()):
                simple.setdefault(found[1], {}).update(_styles(styles))
            else:
                others.update(_CLASS.findall(selector))
    return {name: styles for name, styles in simple.items() if name not in others}


def _rules(sheet: str) -> Iterator[tuple[str, str]]:
    """Yield the selectors and the declarations of each rule; one that holds others counts as selectors only.

    It looks at each character once: a hostile sheet must not take the square of its length in time.
    """
    depth, first, is_nested = 0, "", False
    selectors, styles = list[str](), list[str]()
    for part in _MARK.split(_COMMENT.sub(" ", sheet)):
        if part == "{":
            depth += 1
            is_nested |= depth > 1
        elif part == "}":
            depth = max(0, depth - 1)
        else:
            (styles if depth else selectors).append(part)
            first = first or part.strip()
        if depth == 0 and (part == "}" or (part == ";" and first.startswith("@"))):
            if is_nested:
                selectors, styles = [*selectors, *styles], []
            if not first.startswith("@"):
                yield "".join(selectors), "".join(styles)
            selectors, styles, first, is_nested = [], [], "", False


def _own_styles(attributes: Mapping[str, object], sheet: Mapping[str, Styles]) -> dict[str, str]:
    styles: dict[str, str] = {}
    for class_ in str(attributes.get("class") or "").split() if sheet else ():
        styles.update(sheet.get(class_, {}))
    return styles | _styles(str(attributes.get("style") or ""))


def _is_gone(name: str, attributes: Mapping[str, object], styles: Styles, look: Look) -> bool:
    if name in _UNSEEN or (name == "title" and look.is_picture) or (name == "dialog" and "open" not in attributes):
        return True
    # An element with this attribute is shown all the same if a style says how.
    is_hidden = "hidden" in attributes and "display" not in styles
    return is_hidden or any(hiding.fullmatch(styles.get(style, "")) for style, hiding in _HIDING.items())


def _styles(declarations: str) -> dict[str, str]:
    """Each property with its value, in lower case."""
    pairs = (declaration.partition(":") for declaration in declarations.lower().split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in pairs}
