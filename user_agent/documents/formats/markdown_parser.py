"""The parser for Markdown: CommonMark's, but for the rules under which prose loses characters that its author meant.

- A mark inside a word is no emphasis: 5*3*2 is not 5 times 32.
- An address is text, whatever marks are in it: https://example.org/__init__.py.
- What is nested too deeply is text, where markdown-it drops it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline, escape, newline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token

_DEEPEST = 50
_SCHEME = re.compile(r"\b(?:https?|ftp|file)$", re.IGNORECASE)
_ADDRESS = re.compile(r"://[^\s<\]]*[^\s<\]?!.,:;*_~'\"()]")

References = dict[str, object]


# See docs/decisions/022-what-a-reader-sees.md.
def blocks_of(text: str, references: References) -> list[Token]:
    """The blocks of a text, what is in them still unparsed; `references` is filled with its definitions of links."""
    return _BLOCKS.parse(text, references)


def inline_of(text: str, references: References) -> list[Token]:
    """The parts of a paragraph. The `meta["end"]` of a line break is where it ends in the text."""
    return _INLINE.inline.parse(text, _INLINE, references, [])


def _too_deep(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Take a line as it is."""
    if state.level < _DEEPEST:
        return False
    if not silent:
        token = state.push("inline", "", 0)
        token.content = state.getLines(start_line, start_line + 1, state.blkIndent, False).strip()
        token.map = [start_line, start_line + 1]
        state.line = start_line + 1
    return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Apply markdown-it's rule, with that for _ inside a word for * too."""
    marker = state.src[state.pos]
    if silent or marker not in "*_":
        return False
    can_open, can_close, length = state.scanDelims(state.pos, False)
    for _ in range(length):
        state.push("text", "", 0).content = marker
        state.delimiters.append(Delimiter(ord(marker), length, len(state.tokens) - 1, -1, can_open, can_close))
    state.pos += length
    return True


def _address(state: StateInline, silent: bool) -> bool:
    """Take what follows a scheme as it is, up to the punctuation of the sentence around it."""
    if state.src[state.pos] != ":" or not _SCHEME.search(state.src, max(0, state.pos - 6), state.pos):
        return False
    if not (match := _ADDRESS.match(state.src, state.pos, state.posMax)):
        return False
    if not silent:
        state.append_pending(match[0])
    state.pos = match.end()
    return True


def _placed(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """The rule, noting where its line break is: tokens know no places."""

    def placed(state: StateInline, silent: bool) -> bool:
        is_done = rule(state, silent)
        if is_done and not silent and state.tokens[-1].type in ("softbreak", "hardbreak"):
            state.tokens[-1].meta.setdefault("end", state.pos)
        return is_done

    return placed


def _parser(max_nesting: int) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": max_nesting, "inline_definitions": True})
    # Addresses stay as they are written, and a link to any scheme is a link: nothing here is clicked.
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return parser


_BLOCKS = _parser(2 * _DEEPEST).disable("inline")  # paragraphs are parsed one by one: all at once takes the memory
_BLOCKS.block.ruler.before("code", "too_deep", _too_deep)
_INLINE = _parser(20)
_INLINE.inline.ruler.at("emphasis", _emphasis)
_INLINE.inline.ruler.at("linkify", _address)
_INLINE.inline.ruler.at("newline", _placed(newline))
_INLINE.inline.ruler.at("escape", _placed(escape))
_INLINE.inline.ruler.enable(["linkify"])
