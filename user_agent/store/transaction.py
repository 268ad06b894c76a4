"""Transactions that write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw


@contextmanager
def writing(connection: apsw.Connection) -> Iterator[None]:
    """A transaction that writes from its start on: what it reads first stays so until its end.

    (A connection as context manager waits for another one's transaction without letting other threads run: if that one
    is of the same process, until the busy timeout is over.)
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
