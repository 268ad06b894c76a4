"""Record of answers composed here that never crossed to a core, so that no later conversation sends them.

Only digests are kept: of each beginning of an answer that is longer than what crossed. So a message is known again
where it is an answer, a beginning of one that was cut short anywhere, or goes on behind a whole one.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import apsw

from user_agent.store.database import reported, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS beginning (
    digest BLOB PRIMARY KEY,
    crossed INTEGER NOT NULL,
    is_whole INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_CUT_WORD = re.compile(r"\S+\Z")


# See docs/decisions/042-conversations.md.
class Crossed:
    """Answers given by this agent, as far as they did not cross. Safe to use from several threads."""

    def __init__(self, connection: apsw.Connection, earlier: Callable[[], Iterable[str]]) -> None:
        """Open the store, or begin one.

        Args:
            connection: used by nothing else.
            earlier: answers given before there was this store: nobody noted what crossed, so none of them ever does.
        """
        self._connection, self._lock = connection, threading.Lock()
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'beginning'").fetchone():
            with self._writing():
                connection.execute(_SCHEMA)
                for text in earlier():
                    self._withhold(_digests(text), 0, is_whole=True)

    def notes(self) -> Notes:
        """Begin the notes of an answer."""
        return Notes(self)

    def note(self, text: str, crossed: str) -> None:
        """Note a whole answer; see `Notes.end`."""
        self.notes().end(text, crossed)

    def part_of(self, text: str) -> str:
        """Return the part of an answer that may be sent to a core.

        That is all of it if it was never composed here, or crossed; else the beginning of it that crossed.
        """
        letters = list(_letters(text))
        digests = _digests(text)
        counts = {digest: count for count, digest in enumerate(digests, 1)}
        said = max((count for count, letter in enumerate(letters, 1) if letter.text.isalnum()), default=len(letters))
        query = "SELECT digest, crossed, is_whole FROM beginning WHERE digest = ?"
        with self._lock:
            for digest, crossed, is_whole in self._connection.executemany(query, [(one,) for one in digests]):
                count = counts[digest]
                if count >= said or (is_whole and not _is_within_word(text, letters[count - 1].end)):
                    return _whole_words(text, letters[crossed - 1].end if crossed else 0)
        return text

    def _grow(self, digests: Sequence[bytes], noted: int, released: int, crossed: int, *, is_whole: bool) -> None:
        """Note how an answer has grown.

        Args:
            digests: of its beginnings.
            noted: how many of them were noted before.
            released: how many of them were released before.
            crossed: of how many of them the core has all; these are withheld no longer.
            is_whole: whether it ends here.
        """
        gone = [(digest,) for digest in digests[released:crossed]]
        with self._writing():
            self._connection.executemany("DELETE FROM beginning WHERE digest = ?", gone)
            self._withhold(digests, crossed, noted=noted, is_whole=is_whole)

    def _withhold(self, digests: Sequence[bytes], crossed: int, *, noted: int = 0, is_whole: bool) -> None:
        rows = [(digest, crossed, False) for digest in digests[max(noted, crossed) :]]
        if is_whole and len(digests) > crossed:
            rows = [*rows[:-1], (digests[-1], crossed, True)]
        self._connection.executemany(
            "INSERT INTO beginning (digest, crossed, is_whole) VALUES (?, ?, ?) ON CONFLICT (digest) "
            "DO UPDATE SET crossed = min(crossed, excluded.crossed), is_whole = max(is_whole, excluded.is_whole)",
            rows,
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, reported(Path(self._connection.filename)), writing(self._connection):
            yield


class Notes:
    """Notes of one answer, made before any of it is given: its reader may send back what is shown so far."""

    def __init__(self, store: Crossed) -> None:
        self._store = store
        self._begin()

    def _begin(self) -> None:
        self._text, self._digest, self._released = "", _new_digest(), 0
        self._digests: list[bytes] = []

    def add(self, text: str, crossed: str) -> None:
        """Note an answer as it has grown.

        Args:
            text: of the answer so far.
            crossed: its beginning that the core was sent.

        Raises:
            StoreUnreadable: if it cannot be noted.
        """
        self._note(text, crossed, is_whole=False)

    def end(self, text: str, crossed: str) -> None:
        """Note the end of an answer; see `add`."""
        self._note(text, crossed, is_whole=True)

    def _note(self, text: str, crossed: str, *, is_whole: bool) -> None:
        if not text.startswith(self._text):  # a character has come whole, or a thought is hidden now
            self._begin()
        noted, released = len(self._digests), self._released
        self._digests += _grown(self._digest, text[len(self._text) :])
        self._text, self._released = text, _letters_shared(text, crossed)
        self._store._grow(self._digests, noted, released, self._released, is_whole=is_whole)


class _Letter(NamedTuple):
    """A character that counts, decomposed.

    Attributes:
        text: one character, or part of one.
        end: where it ends in the text.
    """

    text: str
    end: int


def _letters(text: str) -> Iterator[_Letter]:
    """Yield what makes two texts the same, however their clients space, compose and mark them."""
    for end, character in enumerate(text, 1):
        for part in unicodedata.normalize("NFKD", character):
            if not part.isspace() and unicodedata.category(part) != "Cf":
                yield _Letter(part, end)


def _new_digest() -> blake2b:
    return blake2b(digest_size=16)


def _grown(digest: blake2b, text: str) -> Iterator[bytes]:
    """Yield the digest of each longer beginning."""
    for letter in _letters(text):
        digest.update(letter.text.encode(errors="surrogatepass"))
        yield digest.digest()


def _digests(text: str) -> list[bytes]:
    """Digest of each beginning of a text."""
    return list(_grown(_new_digest(), text))


def _letters_shared(text: str, beginning: str) -> int:
    """Count the letters at the beginning of two texts that are the same."""
    count = 0
    for one, other in zip(_letters(text), _letters(beginning), strict=False):
        if one.text != other.text:
            break
        count += 1
    return count


def _is_within_word(text: str, end: int) -> bool:
    return text[end - 1].isalnum() and text[end : end + 1].isalnum()


def _whole_words(text: str, end: int) -> str:
    """Return the beginning of a text up to a place, without a word that is cut there."""
    beginning = text[:end]
    return (_CUT_WORD.sub("", beginning) if text[end : end + 1].strip() else beginning).rstrip()
