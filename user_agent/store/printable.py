"""Text from outside, made safe for a terminal."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The text with every control character replaced: a core must not write escape sequences to a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else REPLACEMENT for c in text)
