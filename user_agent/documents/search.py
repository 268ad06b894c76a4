"""Search over passages that are not kept: as in the store, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from user_agent.documents.index import relevant, words_of_name
from user_agent.documents.passage import Passage
from user_agent.documents.store import SCHEMA
from user_agent.store.database import memory_database


def search(passages: Sequence[Passage], question: str) -> list[Passage]:
    """The passages that `index.relevant` finds, the best match first.

    Args:
        passages: where to search.
        question: in the user's words; nothing in it is read as query syntax.
    """
    with closing(memory_database()) as database:
        database.execute(SCHEMA)
        rows = (
            (number, one.text, one.heading, one.sheet, words_of_name(one.source)) for number, one in enumerate(passages)
        )
        database.executemany("INSERT INTO passage (id, text, heading, sheet, name) VALUES (?, ?, ?, ?, ?)", rows)
        return [passages[number] for number in relevant(database, question)]
