"""Keyword search over passages: BM25 of SQLite's FTS5."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import cast

import apsw

RELEVANT_SHARE = 0.5
"""A passage is relevant with at least this share of the best one's BM25: words such as "my" match everywhere, and
every passage that has nothing to say takes context and attention from those that have."""

COMMON = 2_000
"""A word that stands in more passages is searched for only if no word of the question is rarer: by `RELEVANT_SHARE` it
alone makes none relevant, and ranking all that it matches is what takes the time of a search."""

MOST = 100
"""More passages than any context holds."""

SCHEMA = """
CREATE TABLE passage (
    id INTEGER PRIMARY KEY,
    document_id INTEGER REFERENCES document ON DELETE CASCADE,
    text TEXT NOT NULL,
    line INTEGER,
    page INTEGER
);
CREATE INDEX passage_of_document ON passage (document_id);
CREATE VIRTUAL TABLE word USING fts5 (
    text, content = 'passage', content_rowid = 'id', tokenize = 'porter unicode61'
);
CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO word (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO word (word, rowid, text) VALUES ('delete', old.id, old.text);
END;
"""

_WORD = re.compile(r"\w+")
_RANKED = "SELECT rowid, rank FROM word WHERE word MATCH ? ORDER BY rank, rowid LIMIT ?"
_RANKED_WITHIN = """
SELECT word.rowid, rank FROM word JOIN passage ON passage.id = word.rowid
WHERE word MATCH ? AND document_id IN (SELECT value FROM json_each(?)) ORDER BY rank, word.rowid LIMIT ?
"""


def relevant(database: apsw.Connection, question: str, document_ids: Sequence[int] | None = None) -> list[int]:
    """Passages that are about what the question is about, the best match first.

    Words are compared by their stem, without regard to case or accents.

    Args:
        database: with `SCHEMA` in it.
        question: in the user's words; nothing in it is read as query syntax.
        document_ids: where to search; None for everywhere.

    Returns:
        Ids of at most `MOST` passages, the relevant ones by BM25, equal ones in the order they were added.
    """
    words = list(dict.fromkeys(_WORD.findall(question)))
    if not words:
        return []
    if document_ids is None:
        rows = database.execute(_RANKED, (_any_of(_telling(database, words)), MOST))
    else:
        rows = database.execute(_RANKED_WITHIN, (_any_of(words), json.dumps(list(document_ids)), MOST))
    found = cast("list[tuple[int, float]]", rows.fetchall())
    # FTS5's rank is BM25 negated: the best match has the lowest.
    return [passage_id for passage_id, rank in found if rank <= RELEVANT_SHARE * found[0][1]]


def _telling(database: apsw.Connection, words: Sequence[str]) -> Sequence[str]:
    """The words that are not common, if there is one."""
    count = "SELECT count(*) FROM (SELECT 1 FROM word WHERE word MATCH ? LIMIT ?)"
    counts = {word: cast(int, database.execute(count, (_any_of([word]), COMMON + 1)).get) for word in words}
    return [word for word, passages in counts.items() if 0 < passages <= COMMON] or words


def _any_of(words: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)
