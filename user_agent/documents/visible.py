"""Text as its reader sees it: no control, bidi or invisible characters, which can hide words from a reader.

An invisible character splits a word for the search, a bidi override shows another text than a model reads, and tag
characters carry whole sentences that nobody sees.
"""

from __future__ import annotations

import re

# Of Unicode's category Cf all but the joiners and the Arabic, Syriac and Kaithi signs, which are seen.
_FORMAT = (
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_CONTROL = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffe\uffff"
# Combining grapheme joiner and Hangul fillers: blank, though Unicode calls them a mark and letters.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
_INVISIBLE = f"{_FORMAT}{_CONTROL}{_BLANK}"

# England's flag and its like are spelt with tag characters behind a black flag.
_FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
# Persian, the scripts of India and emoji need joiners behind a character; between Latin letters they only hide.
_JOINED = f"[^\\x00-\u02ff\u1e00-\u206f\u3000-\u303f\ufe00-\ufe0f{_INVISIBLE}]"
_JOINER = f"(?:(?<={_JOINED})|(?<={_JOINED}[\ufe00-\ufe0f]))[\u200c\u200d]"
# A selector chooses one of a character's shapes, so a second one has no use but to carry bits.
_SELECTOR = f"(?<=[^\\s\u200c\u200d\ufe00-\ufe0f{_INVISIBLE}])[\ufe00-\ufe0f]"
_IDEOGRAPH_SELECTOR = "(?<=[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"

_KEPT = f"{_FLAG}|{_JOINER}|{_SELECTOR}|{_IDEOGRAPH_SELECTOR}"
_KEPT_OR_NOT = re.compile(f"({_KEPT})|[{_INVISIBLE}\u200c\u200d\ufe00-\ufe0f]")
_SPACE = re.compile("[\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")


def visible(text: str) -> str:
    """Remove what cannot be seen; every kind of line end but a newline becomes a space, a lone surrogate "?".

    Zero-width joiners stay where a script or an emoji needs them.
    """
    whole = text.encode("utf-8", "replace").decode()
    return _SPACE.sub(" ", _KEPT_OR_NOT.sub(r"\1", whole))
