"""OpenDocument: the parts of its archive, and the text that an element shows.

By lxml, which python-docx brings: the only library for the format, odfpy, has had no release since 2020.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import cached_property

from lxml import etree

from user_agent.documents.formats.archive import check_archive
from user_agent.errors import DocumentsUnreadable

_NAMESPACES = {
    name: f"urn:oasis:names:tc:opendocument:xmlns:{space}:1.0"
    for name, space in (
        ("office", "office"),
        ("style", "style"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("presentation", "presentation"),
    )
}


def qualified(name: str) -> str:
    """A name as lxml has it: "text:p" with its namespace."""
    prefix, _, local = name.partition(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


PARAGRAPH, HEADING, TABLE = map(qualified, ("text:p", "text:h", "table:table"))
_SPACES = {qualified("text:tab"): "\t", qualified("text:line-break"): "\n", qualified("text:soft-page-break"): ""}
_NO_TEXT = frozenset(
    map(
        qualified,
        (
            *("text:tracked-changes", "text:note", "text:ruby-text", "text:hidden-text", "text:hidden-paragraph"),
            *("office:annotation", "office:forms", "text:table-of-content", "text:alphabetical-index"),
        ),
    )
)
_INNER = frozenset(map(qualified, ("draw:frame", "draw:text-box", "draw:custom-shape", "draw:g")))
_MOST_SPACES = 100


class OpenDocument:
    """The content of an OpenDocument file."""

    def __init__(self, data: bytes, what: str, suffix: str) -> None:
        """Open a file.

        Args:
            data: of it.
            what: it should be, with its article.
            suffix: to save it with again.

        Raises:
            DocumentsUnreadable: if it is something else; the text is a reason, without the file's name.
        """
        check_archive(data, what, suffix)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
                manifest = "META-INF/manifest.xml"
                if manifest in names and b"encryption-data" in archive.read(manifest):
                    raise DocumentsUnreadable("is protected by a password; save it without one")
                self._content = _parsed(archive.read("content.xml"))
                self._common = _parsed(archive.read("styles.xml")) if "styles.xml" in names else None
        except (KeyError, zipfile.BadZipFile, etree.XMLSyntaxError) as error:
            raise DocumentsUnreadable(f"is damaged or not {what} ({error}); save it as {suffix} again") from error

    def body(self, name: str) -> etree._Element | None:
        """The element with the content, as "office:text"; None in a document of another kind."""
        return self._content.find(f"{qualified('office:body')}/{qualified(name)}")

    def is_hidden(self, element: etree._Element) -> bool:
        """Tell whether the element's style, or the element itself, hides it."""
        if element.tag in _NO_TEXT or element.get(qualified("text:display")) in ("none", "condition"):
            return True
        return any(style in self._hiding for style in self.styles_of(element))

    def is_title(self, paragraph: etree._Element) -> bool:
        """Tell whether a paragraph has the style of a document's title."""
        based_on = (style.get(qualified("style:parent-style-name")) for style in self.styles_of(paragraph))
        return "Title" in (paragraph.get(qualified("text:style-name")), *based_on)

    def styles_of(self, element: etree._Element) -> Iterator[etree._Element]:
        """Yield the element's style and those that it is based on."""
        names = ("text:style-name", "table:style-name", "draw:style-name")
        name = next((value for each in names if (value := element.get(qualified(each)))), None)
        seen = set[str]()
        while name and name not in seen and name in self._styles:
            seen.add(name)
            style = self._styles[name]
            yield style
            name = style.get(qualified("style:parent-style-name"))

    def text_of(self, element: etree._Element) -> str:
        """The text that a paragraph shows, without frames in it."""
        return "".join(self._texts(element))

    def frames_of(self, paragraph: etree._Element) -> Iterator[etree._Element]:
        """Yield the frames that are fixed to a paragraph."""
        for element in paragraph:
            if element.tag in _INNER:
                yield element
            elif element.tag not in _NO_TEXT:
                yield from self.frames_of(element)

    @cached_property
    def _hiding(self) -> set[etree._Element]:
        hiding = {"text:display": "none", "table:display": "false", "presentation:visibility": "hidden"}
        return {
            style
            for style in self._styles.values()
            for properties in style
            if any(properties.get(qualified(name)) == value for name, value in hiding.items())
        }

    @cached_property
    def _styles(self) -> dict[str, etree._Element]:
        roots = [root for root in (self._common, self._content) if root is not None]
        found = (style for root in roots for style in root.iter(qualified("style:style")))
        return {style.get(qualified("style:name"), ""): style for style in found}

    def _texts(self, element: etree._Element) -> Iterator[str]:
        yield element.text or ""
        for inner in element:
            if inner.tag == qualified("text:s"):
                count = inner.get(qualified("text:c"), "1")
                yield " " * min(_MOST_SPACES, int(count) if count.isdecimal() else 1)
            elif inner.tag in _SPACES:
                yield _SPACES[inner.tag]
            elif isinstance(inner.tag, str) and inner.tag not in _INNER and not self.is_hidden(inner):
                yield from self._texts(inner)
            yield inner.tail or ""


def _parsed(data: bytes) -> etree._Element:
    """Parse XML without entities of its own, and without looking anything up."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(data, parser)
