"""From bytes to text, or the reason why they are none."""

from __future__ import annotations

import codecs

from user_agent.errors import DocumentsUnreadable

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KNOWN = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip archive or an Office document",
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x1f\x8b": "a compressed file",
    b"SQLite format 3\0": "a database",
}


def looks_like(data: bytes) -> str | None:
    """Tell a file's format by its first bytes; None for text or an unknown format."""
    return next((what for magic, what in _KNOWN.items() if data.startswith(magic)), None)


def decode(data: bytes, declared: str | None = None) -> str:
    """Text in UTF-8, in UTF-16 with its byte order mark, or in the encoding that the file itself declares.

    Raises:
        DocumentsUnreadable: if it is none of them.
    """
    if data.startswith(_UTF16):
        return _decoded(data, "utf-16")
    if b"\0" in data:
        raise DocumentsUnreadable(f"is {looks_like(data) or 'binary'}, despite its name; rename it")
    return _decoded(data, declared or "utf-8-sig")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        if what := looks_like(data):
            raise DocumentsUnreadable(f"is {what}, despite its name; rename it") from error
        raise DocumentsUnreadable(
            f"cannot be read as {encoding.removesuffix('-sig')} text; save it as UTF-8"
        ) from error
