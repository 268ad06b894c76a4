"""What of the answers given here never crossed to a core, so that no later conversation sends it.

Only digests are kept: of each beginning of an answer that is longer than what crossed. So a message is known again
where it is an answer, or the beginning of one that was cut short. They are written before the text is shown, part by
part: of an answer whose process was killed, what is not known to have crossed counts as not crossed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from user_agent.store.database import reported, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS withheld (
    digest BLOB PRIMARY KEY,
    crossed_words INTEGER NOT NULL,
    is_whole INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

_WORD = re.compile(r"\S+")


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
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'withheld'").fetchone():
            with self._writing():
                connection.execute(_SCHEMA)
                for text in earlier():
                    self._withhold(text, 0)

    def note(self, text: str, crossed: str) -> None:
        """Note an answer before it is given.

        Args:
            text: of the answer.
            crossed: its beginning that the core was sent.

        Raises:
            StoreUnreadable: if it cannot be noted.
        """
        with self._writing():
            self._forget(_digests(crossed))
            self._withhold(text, _same_words(text, crossed))

    def note_part(self, text: str, crossed: str, noted: set[bytes]) -> None:
        """Note an answer so far before it is shown: the process may be killed before `note` is called.

        Args:
            text: of the answer so far; it may end within a word.
            crossed: its beginning that is known to be with the core.
            noted: what earlier calls for this answer noted; updated.

        Raises:
            StoreUnreadable: if it cannot be noted.
        """
        digests, crossed_words = _digests(text), _same_words(text, crossed)
        released = noted.intersection(_digests(crossed))
        new = [one for one in digests[crossed_words:] if one not in noted]
        with self._writing():
            self._forget(released)
            self._insert((digest, crossed_words, False) for digest in new)
        noted.difference_update(released)
        noted.update(new)

    def part_of(self, text: str) -> str:
        """Return the part of an answer that may be sent to a core.

        That is all of it if it was never composed here, or crossed; else the beginning of it that crossed.
        """
        words = list(_WORD.finditer(text))
        with self._lock:
            for count, digest in enumerate(_digests(text), 1):
                row = self._connection.execute(
                    "SELECT crossed_words, is_whole FROM withheld WHERE digest = ?", (digest,)
                ).fetchone()
                if row and (row[1] or count == len(words)):
                    return text[: words[row[0] - 1].end()] if row[0] else ""
        return text

    def _withhold(self, text: str, crossed_words: int) -> None:
        digests = _digests(text)
        withheld = list(enumerate(digests, 1))[crossed_words:]
        self._insert((digest, crossed_words, count == len(digests)) for count, digest in withheld)

    def _insert(self, rows: Iterable[tuple[bytes, int, bool]]) -> None:
        self._connection.executemany(
            "INSERT INTO withheld (digest, crossed_words, is_whole) VALUES (?, ?, ?) ON CONFLICT (digest) "
            "DO UPDATE SET crossed_words = min(crossed_words, excluded.crossed_words), "
            "is_whole = max(is_whole, excluded.is_whole)",
            rows,
        )

    def _forget(self, digests: Iterable[bytes]) -> None:
        """Forget what was withheld of a text that crosses now: a core has it."""
        self._connection.executemany("DELETE FROM withheld WHERE digest = ?", [(one,) for one in digests])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, reported(Path(self._connection.filename)), writing(self._connection):
            yield


def _digests(text: str) -> list[bytes]:
    """Digest of each beginning of a text that ends with a word; how words are spaced does not count."""
    digest, found = hashlib.sha256(), []
    for word in _WORD.findall(text):
        digest.update(word.encode(errors="surrogatepass") + b" ")
        found.append(digest.digest())
    return found


def _same_words(text: str, beginning: str) -> int:
    """Count the words at the beginning of two texts that are the same."""
    pairs = zip(_WORD.findall(text), _WORD.findall(beginning), strict=False)
    same = [one == other for one, other in pairs]
    return same.index(False) if False in same else len(same)
