"""Markdown: its text as a reader of the rendered page sees it, by CommonMark's rules.

Where those would change what the file says, the file wins: an ordered item keeps the number that is written (a renderer
counts on from the first, and turns a date into another), a table keeps the cells that have no column, and a definition
that no link refers to stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from markdown_it.token import Token

from user_agent.documents.formats.encoding import decode
from user_agent.documents.formats.headings import Leveled, under_headings
from user_agent.documents.formats.markdown_parser import References, blocks_of, inline_of
from user_agent.documents.formats.plain_text import lines_of, paragraphs
from user_agent.documents.formats.raw_html import RawHTML, Tag, ended, tag_of, tags_of
from user_agent.documents.formats.section import Section

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)
_MARK = re.compile(r"[*_`\[\]<&\\]")
_LEVELS = {"=": 1, "-": None}  # underlined with "-": a paragraph and a rule?
_NOWHERE = ("", "#")  # the addresses of definitions to which nothing leads
_CELL_BORDER = re.compile(r"((?<!\\)\|)")


def sections(data: bytes) -> Iterator[Section]:
    """The paragraphs, items, rows and lines of code, with their lines and headings."""
    text = "\n".join(lines_of(decode(data)))
    if front := _FRONT_MATTER.match(text):
        yield from paragraphs(enumerate(front[1].split("\n"), start=2))
        text = "\n" * front[0].count("\n") + text[front.end() :]
    yield from under_headings(_Document(text).sections())


class _Document:
    """One text on its way through the parser, with what later blocks need to know of earlier ones."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._references: References = {}
        self._html = RawHTML()

    def sections(self) -> Iterator[Leveled]:
        """Each section, and its level if it is a heading."""
        number, level = "", None
        tokens = blocks_of(self._text, self._references)
        ends = self._ends(tokens)
        for at, token in enumerate(tokens):
            if token.type == "heading_open":
                level = _LEVELS.get(token.markup, len(token.markup))
            elif token.type == "list_item_open" and token.info:
                number = f"{token.info}{token.markup} "
            elif token.type == "list_item_close" and number:
                yield Section(number), None  # of an item without text
                number = ""
            for section, own in self._sections_of(token, ends.get(at, set())):
                yield replace(section, text=number + section.text), level or own
                number = ""
            if token.type == "inline":
                level = None

    def _ends(self, tokens: Sequence[Token]) -> dict[int, set[int]]:
        """The places, block by block, of the tags in HTML whose other half is in the document."""
        found: dict[int, set[int]] = {}
        if any(token.type == "html_block" for token in tokens):
            for at, place in ended(self._tags(tokens)):
                found.setdefault(at, set()).add(place)
        return found

    def _tags(self, tokens: Iterable[Token]) -> Iterator[tuple[tuple[int, int], Tag]]:
        """Yield the tags of blocks, and of paragraphs the end tags that end none of their own."""
        for at, token in enumerate(tokens):
            if token.type == "html_block":
                yield from (((at, tag.start), tag) for tag in tags_of(token.content))
            elif token.type == "inline" and "</" in token.content:
                tags = _tags_of(inline_of(token.content, self._references))
                own = ended(tags.items())
                yield from (((at, place), tag) for place, tag in tags.items() if tag.is_end and place not in own)

    def _sections_of(self, token: Token, ends: set[int]) -> Iterator[Leveled]:
        line = token.map[0] + 1 if token.map else 1
        if token.type == "html_block" and self._html.is_html(token.content, ends):
            yield from self._html.block(token.content, ends, line)
        elif token.type in ("inline", "html_block"):
            yield from ((section, None) for section in self._paragraph(token.content, line))
        elif token.type == "definition" and token.meta["url"] in _NOWHERE:
            return  # how a comment is written: [//]: # (nobody sees this)
        elif token.type == "definition":
            address = _address(token.meta["url"], token.meta["title"])
            yield Section(f"[{token.meta['label']}]: {address}", line=line), None
        elif token.type in ("fence", "code_block") and self._html.is_seen:
            first = line + 1 if token.type == "fence" else line
            lines = enumerate(token.content.split("\n"), start=first)
            yield from ((section, None) for section in paragraphs(lines))

    def _paragraph(self, text: str, line: int) -> Iterator[Section]:
        lines = text.split("\n")
        rule = next((at for at in range(1, len(lines)) if _is_table(lines[at - 1], lines[at])), None)
        if rule is None:
            yield from paragraphs(self._lines(text, line))
            return
        yield from paragraphs(self._lines("\n".join(lines[: rule - 1]), line))
        for at in (rule - 1, *range(rule + 1, len(lines))):
            cells = (self._shown(cell.replace(r"\|", "|")) for cell in _CELL_BORDER.split(lines[at]))
            yield Section("".join(cells), line=line + at)

    def _lines(self, text: str, line: int) -> Iterator[tuple[int, str]]:
        """The lines of a paragraph as they are shown, each with its number; one may be in several of the file."""
        if not _MARK.search(text):  # most prose, three times as fast
            return enumerate(text.split("\n") if self._html.is_seen else (), start=line)
        tokens = inline_of(text, self._references)
        numbers, end = [line], 0
        for token in tokens:
            if token.type in ("softbreak", "hardbreak"):
                numbers.append(numbers[-1] + text.count("\n", end, token.meta["end"]))
                end = token.meta["end"]
        return zip(numbers, self._shown_parts(tokens).split("\n"), strict=True)

    def _shown(self, text: str) -> str:
        return self._shown_parts(inline_of(text, self._references))

    def _shown_parts(self, tokens: Sequence[Token]) -> str:
        """Tokens as they are shown, with a newline for each line break."""
        parts, depth, link = list[str](), self._html.depth, (0, "")
        tags = _tags_of(tokens)
        ends = ended(tags.items())
        for at, token in enumerate(tokens):
            if token.type in ("softbreak", "hardbreak"):
                parts.append("\n")
            elif token.type == "html_inline":
                parts.append(self._html.text_of(tags[at], is_ended=at in ends).replace("\n", " "))
            elif not self._html.is_seen:
                continue
            elif token.type == "link_open":
                link = (len(parts), "" if token.info == "auto" else _address(*map(token.attrGet, ("href", "title"))))
            elif token.type == "link_close":
                parts.append(_behind("".join(parts[link[0] :]), link[1]))
            elif token.type == "image":
                alternative = self._shown_parts(token.children or ()).replace("\n", " ")
                parts.append(alternative + _behind(alternative, _address(*map(token.attrGet, ("src", "title")))))
            else:
                parts.append(token.content.replace("\n", " "))
        self._html.close_to(depth)
        return "".join(parts)


def _tags_of(tokens: Sequence[Token]) -> dict[int, Tag]:
    """The tags in a paragraph, by their places among its parts."""
    return {at: tag_of(token.content) for at, token in enumerate(tokens) if token.type == "html_inline"}


def _is_table(header: str, rule: str) -> bool:
    return "|" in header and "|" in rule and "-" in rule and not rule.strip("|:- \t")


def _address(url: object, title: object) -> str:
    return f'{url} "{title}"' if title else f"{url or ''}"


def _behind(text: str, address: str) -> str:
    """The address behind a link's text, unless it says the same."""
    return f" ({address})" if address and address != text else ""
