"""Search over passages that are not kept: as in the store, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from user_agent.documents import index
from user_agent.documents.finding import found_by_words
from user_agent.documents.passage import Passage
from user_agent.documents.store import SCHEMA
from user_agent.store.database import memory_database


def search(passages: Sequence[Passage], question: str) -> list[Passage]:
    """The passages that words find, the best match first, however little they are about the question.

    Args:
        passages: where to search.
        question: in the user's words; nothing in it is read as query syntax.
    """
    with closing(memory_database()) as database:
        database.execute(SCHEMA)
        rows = (
            (number, one.text, one.heading, one.sheet, index.words_of_name(one.source))
            for number, one in enumerate(passages)
        )
        database.executemany("INSERT INTO passage (id, text, heading, sheet, name) VALUES (?, ?, ?, ?, ?)", rows)
        index.add(database, None)
        return [passages[number] for number in found_by_words(index.matches(database, question)).ids]
