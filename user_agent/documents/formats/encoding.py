"""From bytes to text, or the reason why they are none."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

from charset_normalizer import from_bytes

from user_agent.errors import DocumentsUnreadable

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the mark of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
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

_ALPHABETS = tuple(
    frozenset(f"éäöü{letters}") for letters in ("ß", "àâçèêëîïôœùûÿæ", "áíñóú", "àáâãçêíóôõú", "àèìòù", "åæø", "ëïèêáó")
)
"""Letters beyond ASCII of German, French, Spanish, Portuguese, Italian, the Nordic languages and Dutch."""

_SIGNS = frozenset("¿¡€£§°²³µ·«»„“”‘’‚–—…•©®™½¼¾±×ªº´\xa0")
_SIGN_IN_A_WORD = re.compile(r"[^\W\d_][¿¡€£§°²³½¼¾±×®™„“•«»][^\W\d_]")
_MOST_WESTERN = 0.4
"""Share of the letters: text in another encoding, as Greek or Russian, has nearly all of its letters beyond ASCII."""

_LEAST_COHERENCE = 0.4
"""Below it charset-normalizer has not found the letters of a language about as often as that language has them."""

_LEAST_BEYOND = 8
"""Fewer bytes beyond ASCII tell nothing."""

_NO_TEXT = re.compile("[\0-\x08\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_SAMPLE_BYTES = 256 * 1024
_MOST_CONTROLS = 0.02


def looks_like(data: bytes) -> str | None:
    """Tell a file's format by its first bytes; None for text or an unknown format."""
    return next((what for magic, what in _KNOWN.items() if data.startswith(magic)), None)


def decode(data: bytes, declared: str | None = None) -> str:
    """Text in the encoding of its byte order mark, the one that the file itself declares, UTF-8, or a recognised one.

    Recognised are UTF-16 without a mark, windows-1252, and others where charset-normalizer is certain.

    Raises:
        DocumentsUnreadable: if it is none of them: text that is read in a wrong encoding says something else.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _decoded(data, encoding)
    if b"\0" in data:
        found = _unmarked_utf16(data)
        if found is not None:
            return found
        raise DocumentsUnreadable(f"is {looks_like(data) or 'binary'}, despite its name; rename it")
    for named in filter(None, (declared, "utf-8-sig")):
        with suppress(UnicodeDecodeError, LookupError):
            return data.decode(named)
    if what := looks_like(data):
        raise DocumentsUnreadable(f"is {what}, despite its name; rename it")
    text = recognised(data)
    if text is None:
        raise DocumentsUnreadable("is in an encoding that cannot be recognised; save it as UTF-8")
    return text


def recognised(data: bytes) -> str | None:
    """Decode text that is not UTF-8 in the encoding that it can be told to have; None where it cannot be told."""
    with suppress(UnicodeDecodeError):
        if _is_western(text := data.decode("cp1252")):
            return text
    found = from_bytes(data[:_SAMPLE_BYTES]).best()
    if found is None or sum(byte > 0x7F for byte in data) < _LEAST_BEYOND or found.coherence < _LEAST_COHERENCE:
        return None
    with suppress(UnicodeDecodeError, LookupError):
        return data.decode(found.encoding)
    return None


def _is_western(text: str) -> bool:
    """Tell whether text makes sense as windows-1252: with the letters of one language, and no sign inside a word.

    Polish and Czech text in their own encoding would be read with other letters, and nobody would see it.
    """
    beyond = [character for character in text if character > "\x7f" and character not in _SIGNS]
    letters = {character.lower() for character in beyond}
    is_rare = len(beyond) <= max(1, _MOST_WESTERN * sum(map(str.isalpha, text)))
    return is_rare and any(map(letters.issubset, _ALPHABETS)) and not _SIGN_IN_A_WORD.search(text)


def _unmarked_utf16(data: bytes) -> str | None:
    """Decode UTF-16 without a byte order mark: of most scripts' spaces and digits every other byte is zero."""
    zeros = data[0::2].count(0), data[1::2].count(0)
    if max(zeros) <= 4 * min(zeros):
        return None
    with suppress(UnicodeDecodeError):
        text = data.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
        return None if len(_NO_TEXT.findall(text)) > _MOST_CONTROLS * len(text) else text
    return None


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentsUnreadable(f"cannot be read as {encoding} text; save it as UTF-8") from error
