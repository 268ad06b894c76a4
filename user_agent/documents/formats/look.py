"""The looks of elements of HTML, as seen or not: by their names, attributes and styles.

Text is taken for seen that is hidden by an external style sheet, by a script, by a selector other than `.a`, `#a`, `a`
and two of them one within the other (`.a p`), by the color of what is behind it or by an element that covers it.
"""

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
_ZERO = r"-?(?:0+(?:\.0*)?|\.0+)(?:%|[a-z]+)?"
_FAR = re.compile(r"-(?:\d{4,}(?:\.\d*)?(?:px|pt|%)|\d{3,}(?:\.\d*)?(?:r?em|vw|vh|in|cm))")
_HIDING = {
    "display": re.compile("none"),
    "mso-hide": re.compile("all"),
    "opacity": re.compile(_ZERO),
    "filter": re.compile(rf".*opacity\({_ZERO}\).*"),
    "content-visibility": re.compile("hidden"),
    "transform": re.compile(rf".*scale(?:3d|x|y)?\({_ZERO}[,)].*"),
    "scale": re.compile(_ZERO),
    "clip-path": re.compile(rf"inset\((?:100|[5-9]\d)%\)|circle\({_ZERO}(?: .*)?\)"),
    **dict.fromkeys(("text-indent", "margin-left", "margin-top"), _FAR),
}
_HIDING_POSITIONED = {
    **dict.fromkeys(("left", "top"), _FAR),
    "clip": re.compile(r"rect\((\d+)(?:px)?[, ]\d+(?:px)?[, ]\1(?:px)?[, ]\d+(?:px)?\)"),
}
_FLAT = re.compile(rf"{_ZERO}|1px")
_NO_COLOR = re.compile(
    rf"transparent|(?:rgb|hsl)a?\((?:[^,/]*,[^,/]*,[^,/]*,|[^,/]*/){_ZERO}\)|#[0-9a-f]{{3}}0|#[0-9a-f]{{6}}00"
)
_ZERO_SIZE = re.compile(_ZERO)
_FONT = re.compile(r"(?:.* )?(0|[\d.]+(?:%|[a-z]+))(?:/\S+)? \S.*")  # its size stands before its family
_OWN_SIZE = re.compile(r"[\d.]+(?:px|pt|pc|cm|mm|in|rem|vw|vh|q)|[a-z-]+")  # others are shares of the parent's size
_ESCAPE = re.compile(r"\\(?:([0-9a-f]{1,6})\s?|(.))")
_NAME = re.compile(r"[.#]?[a-z_-][\w-]*", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_MARK = re.compile(r"([{};])")

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
        within: the names of it and of elements around it on which the style sheet makes others depend.
    """

    is_gone: bool = False
    is_invisible: bool = False
    is_tiny: bool = False
    is_transparent: bool = False
    is_picture: bool = False
    within: frozenset[str] = frozenset()

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
        sheet: the styles of names, as `styles_of` gives them.
    """
    if around.is_gone:
        return around
    names = _names(name, attributes) if sheet else []
    styles = _own_styles(names, attributes, around, sheet)
    look = around if name != "svg" else replace(around, is_picture=True)
    if outer := {each for each in names if f"{each} " in sheet} - look.within:
        look = replace(look, within=look.within | outer)
    if visibility := styles.get("visibility"):
        look = replace(look, is_invisible=visibility in ("hidden", "collapse"))
    if size := styles.get("font-size"):
        is_tiny = bool(_ZERO_SIZE.fullmatch(size)) or (look.is_tiny and not _OWN_SIZE.fullmatch(size))
        look = replace(look, is_tiny=is_tiny)
    if color := styles.get("color"):
        look = replace(look, is_transparent=bool(_NO_COLOR.fullmatch(color)))
    return replace(look, is_gone=True) if _is_gone(name, attributes, styles, look) else look


def styles_of(sheets: Iterable[str]) -> dict[str, Styles]:
    """The styles that style sheets set for a name on its own or in another, as in `.preheader` and `#top p`.

    A name is an element's, ".class" or "#id". A name that others depend on is there once more, with a space behind it.
    What a further selector sets for a name too, as `.tab.open` for `.tab`, is left out: which elements that selects is
    not known, and to hide what a reader sees is worse than to show what none sees. So are rules for some media.
    """
    simple: dict[str, dict[str, str]] = {}
    others: dict[str, set[str]] = {}
    for selectors, declarations in _rules("\n".join(sheets).replace("<!--", " ").replace("-->", " ")):
        styles = _styles(declarations)
        for selector in selectors.split(","):
            names = [name if name[0] in ".#" else name.lower() for name in selector.split()]
            if 1 <= len(names) <= 2 and all(map(_NAME.fullmatch, names)):
                simple.setdefault(" ".join(names), {}).update(styles)
                simple.update({f"{outer} ": {} for outer in names[:-1]})
            else:
                for name in _NAME.findall(names[-1] if names else ""):
                    others.setdefault(name, set()).update(styles)
    return {
        key: {name: value for name, value in styles.items() if name not in others.get(key.split()[-1], ())}
        for key, styles in simple.items()
    }


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


def _names(name: str, attributes: Mapping[str, object]) -> list[str]:
    """The names by which style sheets select an element."""
    classes = [f".{class_}" for class_ in str(attributes.get("class") or "").split()]
    return [name, *classes, *([f"#{attributes['id']}"] if attributes.get("id") else [])]


def _own_styles(
    names: list[str], attributes: Mapping[str, object], around: Look, sheet: Mapping[str, Styles]
) -> dict[str, str]:
    selectors = [*names, *(f"{outer} {name}" for outer in around.within for name in names)]
    styles: dict[str, str] = {}
    for selector in sorted((selector for selector in selectors if selector in sheet), key=_rank):
        styles.update(sheet[selector])
    own = attributes.get("style")
    return styles | _styles(str(own)) if own else styles


def _rank(selector: str) -> tuple[int, int, int]:
    """A selector's place in the order in which browsers let one win over another."""
    return selector.count("#"), selector.count("."), selector.count(" ")


def _is_gone(name: str, attributes: Mapping[str, object], styles: Styles, look: Look) -> bool:
    if name in _UNSEEN or (name == "title" and look.is_picture) or (name == "dialog" and "open" not in attributes):
        return True
    # An element with these attributes is shown all the same if a style says how.
    if ("hidden" in attributes or "popover" in attributes) and "display" not in styles:
        return True
    hiding = _HIDING if styles.get("position", "static") == "static" else _HIDING | _HIDING_POSITIONED
    return any(hiding[style].fullmatch(styles[style]) for style in styles.keys() & hiding) or _is_flat(styles)


def _is_flat(styles: Styles) -> bool:
    """Tell whether the element has no room for its text, and cuts it off."""
    cuts = [styles.get(f"overflow{axis}", "") for axis in ("", "-x", "-y")] if styles else []
    is_cut = any(cut.startswith(("hidden", "clip")) for cut in cuts)
    sizes = ("height", "max-height", "width", "max-width")
    room = " ".join(styles.get(f"padding{side}", "0") for side in ("", "-top", "-bottom"))  # as around a film
    return (
        is_cut
        and any(_FLAT.fullmatch(styles.get(size, "")) for size in sizes)
        and all(map(_ZERO_SIZE.fullmatch, room.split()))
    )


def _styles(declarations: str) -> dict[str, str]:
    """Each property with its value, in lower case, the size of a font as a property of its own."""
    styles: dict[str, str] = {}
    for declaration in _COMMENT.sub(" ", declarations).lower().split(";"):
        name, _, value = _ESCAPE.sub(_unescaped, declaration).partition(":")
        value = " ".join(value.replace("!important", "").replace("! important", "").split())
        styles[name.strip()] = value = re.sub(r" ?([,()/]) ?", r"\1", value)
        if name.strip() == "font" and (size := _FONT.fullmatch(value)):
            styles["font-size"] = size[1]
    return styles


def _unescaped(escape: re.Match[str]) -> str:
    code = int(escape[1], 16) if escape[1] else 0
    return chr(code) if 0 < code <= 0x10FFFF else escape[2] or "\ufffd"
