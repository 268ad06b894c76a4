"""Keyword search over passages: BM25 of SQLite's FTS5, in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from user_agent.documents.reader import Passage

RELEVANT_SHARE = 0.5
"""A passage is relevant with at least this share of the best one's BM25: words such as "my" match everywhere, and
every passage that has nothing to say takes context and attention from those that have."""

_WORD = re.compile(r"\w+")


def search(passages: Sequence[Passage], question: str) -> list[Passage]:
    """Passages that are about what the question is about, the best match first.

    Words are compared by their stem, without regard to case or accents.

    Args:
        passages: where to search.
        question: in the user's words; nothing in it is read as query syntax.

    Returns:
        The relevant passages by BM25, equal ones in their own order.
    """
    words = _WORD.findall(question)
    if not words or not passages:
        return []
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE VIRTUAL TABLE passage USING fts5(text, tokenize = 'porter unicode61')")
        rows = ((number, passage.text) for number, passage in enumerate(passages))
        database.executemany("INSERT INTO passage (rowid, text) VALUES (?, ?)", rows)
        found = database.execute(
            "SELECT rowid, rank FROM passage WHERE passage MATCH ? ORDER BY rank, rowid",
            (" OR ".join(f'"{word}"' for word in words),),
        ).fetchall()
    # FTS5's rank is BM25 negated: the best match has the lowest.
    return [passages[number] for number, rank in found if rank <= RELEVANT_SHARE * found[0][1]]
