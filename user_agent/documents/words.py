"""Words of a text as they are indexed and searched for: without stop words, stemmed by the language of the document.

Stems are those of Snowball. Its German one also takes "ae" for "ä" and "ss" for "ß", so that "Kaesekuchen" finds
"Käsekuchen".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, Literal, TypeAlias

import snowballstemmer

Language: TypeAlias = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = ("en", "de")

_STOP_WORDS: dict[Language, frozenset[str]] = {
    "en": frozenset(
        "a about after again all also am an and any are as at be because been before being between both but by can "
        "could did do does doing don for from had has have having he her here hers him his how i if in into is it its "
        "just ll let may me might more most much many must my no nor not now of off on once only or other our out over "
        "own please re s shall she should so some such t than that the their them then there these they this those "
        "to too up us ve very was we were what whats when where which while who whom whose why will with would you "
        "your".split()
    ),
    "de": frozenset(
        "ab aber alle allem allen aller alles als also am an auch auf aus bei beim bin bis bist da dann darf das dass "
        "dazu dein deine dem den denn der des dessen die dies diese diesem diesen dieser dieses doch dort du durch "
        "ein eine einem einen einer eines er es euer etwas für gibt haben habe hat hatte hatten hier ich ihm ihn ihnen "
        "ihr ihre ihrem ihren ihrer im in ins ist ja je jede jeder jedes kann kein keine können lautet man mein meine "
        "meinem meinen meiner mich mir mit muss müssen nach nicht noch nun nur ob oder ohne schon sehr sein seine sich "
        "sie sind so soll sollen sollte über um und uns unser unsere unserem unseren unserer unter viel viele vom von "
        "vor wann war waren warum was welche welchem welchen welcher welches wem wen wenn wer werden wessen wie wieso "
        "wieviel will wir wird wo wohin wofür woher wurde würde zu zum zur".split()
    ),
}
_WORD = re.compile(r"[^\W_]+")

SHORTEST_PART = 4
"""Letters of the shortest word that is looked for inside another one."""

SHORTEST_COMPOUND = 8


def words(text: str) -> list[str]:
    """Return the words of a text, in small letters and in its order."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def language_of(text: str) -> Language | None:
    """Guess the language by its stop words; None where neither has more of them."""
    found = words(text)
    counts = {language: sum(word in _STOP_WORDS[language] for word in found) for language in LANGUAGES}
    if counts["en"] == counts["de"]:
        return "de" if any(letter in text for letter in "äöüßÄÖÜ") else None
    return max(LANGUAGES, key=counts.__getitem__)


def content_words(text: str, language: Language | None) -> list[str]:
    """Return the words that say what a text is about, each once; all of them where it has no other.

    Args:
        text: as written.
        language: whose stop words are left out; None for those of all languages.
    """
    stop = _STOP_WORDS[language] if language else frozenset[str]().union(*_STOP_WORDS.values())
    found = list(dict.fromkeys(words(text)))
    return [word for word in found if word not in stop] or found


def stems(text: str, language: Language) -> list[str]:
    """Return the stems of a text that are indexed, in its order and as often as they stand in it."""
    stop = _STOP_WORDS[language]
    return [stem(word, language) for word in words(text) if word not in stop]


@lru_cache(100_000)
def stem(word: str, language: Language) -> str:
    """Return the stem of a word in small letters, without accents."""
    stemmed = word if any(map(str.isdigit, word)) else _stemmer(language).stemWord(word)
    if language == "de" and len(stemmed) > 6 and stemmed.startswith("ge") and stemmed.endswith("t"):
        stemmed = stemmed[2:-1]  # a participle: "gekündigt" is of "kündigen"
    return "".join(c for c in unicodedata.normalize("NFKD", stemmed) if not unicodedata.combining(c))


def parts(stemmed: Iterable[str]) -> list[str]:
    """Return the beginnings and ends of long words: what another word may have in common with a compound.

    "kundigungsfrist" has "kundigung" and "frist" among them.
    """
    return list(dict.fromkeys(part for word in stemmed if _is_long(word) for part in _ends(word)))


def splits(stemmed: str) -> list[tuple[str, str]]:
    """Return the ways to split a word in two, the linking letter dropped from the first."""
    if not _is_long(stemmed):
        return []
    found = []
    for at in range(SHORTEST_PART, len(stemmed) - SHORTEST_PART + 1):
        first, second = stemmed[:at], stemmed[at:]
        found.append((first, second))
        if first[-1] in "sne" and len(first) > SHORTEST_PART:
            found.append((first[:-1], second))
    return found


def _is_long(word: str) -> bool:
    return len(word) >= SHORTEST_COMPOUND and word.isalpha()


@lru_cache(50_000)
def _ends(word: str) -> tuple[str, ...]:
    at = range(SHORTEST_PART, len(word) - SHORTEST_PART + 1)
    return (*(word[:end] for end in at), *(word[begin:] for begin in at))


@cache
def _stemmer(language: Language) -> Any:
    return snowballstemmer.stemmer({"en": "english", "de": "german"}[language])
