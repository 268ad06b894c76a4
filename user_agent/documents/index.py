"""Keyword search over passages, their headings and the names of their files: BM25 of SQLite's FTS5."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
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

_SEARCHED = """
CREATE VIRTUAL TABLE word USING fts5 (
    text, heading, name, content = 'passage', content_rowid = 'id', tokenize = 'porter unicode61'
);
INSERT INTO word (word, rank) VALUES ('rank', 'bm25(1.0, 0.6, 0.4)');
CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO word (rowid, text, heading, name)
    VALUES (new.id, new.text, new.heading || ' ' || new.sheet, new.name);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO word (word, rowid, text, heading, name)
    VALUES ('delete', old.id, old.text, old.heading || ' ' || old.sheet, old.name);
END;
"""

SCHEMA = f"""
CREATE TABLE passage (
    id INTEGER PRIMARY KEY,
    document_id INTEGER REFERENCES document ON DELETE CASCADE,
    text TEXT NOT NULL,
    line INTEGER,
    page INTEGER,
    heading TEXT NOT NULL DEFAULT '',
    sheet TEXT NOT NULL DEFAULT '',
    slide INTEGER,
    name TEXT NOT NULL DEFAULT ''  -- words of the file's name, to be searched
);
CREATE INDEX passage_of_document ON passage (document_id);
{_SEARCHED}"""

FROM_TEXT_ONLY = f"""
DROP TRIGGER passage_added;
DROP TRIGGER passage_removed;
DROP TABLE word;
ALTER TABLE passage ADD COLUMN heading TEXT NOT NULL DEFAULT '';
ALTER TABLE passage ADD COLUMN sheet TEXT NOT NULL DEFAULT '';
ALTER TABLE passage ADD COLUMN slide INTEGER;
ALTER TABLE passage ADD COLUMN name TEXT NOT NULL DEFAULT '';
{_SEARCHED}
INSERT INTO word (rowid, text, heading, name) SELECT id, text, ' ', '' FROM passage;
"""  # noqa: S608  made of constants
"""From the schema of store version 2, which searched the text only."""

_WORD = re.compile(r"\w+")
_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])")
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


def words_of_name(path: Path) -> str:
    """Return the words of a file's name, to be searched; "DentistJune.md" has two."""
    return _CAMEL.sub(" ", path.stem)


def _telling(database: apsw.Connection, words: Sequence[str]) -> Sequence[str]:
    """The words that are not common, if there is one."""
    count = "SELECT count(*) FROM (SELECT 1 FROM word WHERE word MATCH ? LIMIT ?)"
    counts = {word: cast(int, database.execute(count, (_any_of([word]), COMMON + 1)).get) for word in words}
    return [word for word, passages in counts.items() if 0 < passages <= COMMON] or words


def _any_of(words: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)
