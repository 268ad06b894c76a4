"""Record of the answers that sent something: what was asked, and which words of the user's own text crossed.

It says in words what the ledger holds as messages, and names the documents, so it is for this device only. An answer
for which nothing was sent has no record.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import apsw

from user_agent.store.database import reported, writing

State: TypeAlias = Literal["begun", "stopped", "whole"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    trace TEXT PRIMARY KEY,
    question TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'stopped', 'whole')),
    words TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class CrossedWords:
    """Words of the user's own text that an answer quotes, and that so have crossed.

    Attributes:
        text: as they stand in the answer.
        source: path of the document; "" for the private context.
        place: where they stand, as the user reads it: the file's name with page or line.
    """

    text: str
    source: str
    place: str


@dataclass(frozen=True)
class AnswerRecord:
    """One answer.

    Attributes:
        question: as it was asked.
        state: "begun" until it ends, and for good if the agent broke down meanwhile, with `words` unknown; "stopped" if
            it failed or was stopped, else "whole".
        words: of the user's own text that crossed with it.
    """

    question: str
    state: State
    words: Sequence[CrossedWords]


# See docs/decisions/066-what-the-provider-learns.md.
class AnswerRecords:
    """Records in a database of their own. Safe to use from several threads.

    Whatever writes raises `StoreUnreadable` if it cannot.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        """Open the records, or begin them.

        Args:
            connection: used by nothing else.
        """
        self._connection, self._lock = connection, threading.Lock()
        connection.execute("PRAGMA secure_delete = ON")  # what was deleted is overwritten
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'answer'").fetchone():
            with self._writing():
                connection.execute(_SCHEMA)

    def begin(self, trace: str, question: str) -> None:
        """Note a question before anything of it is sent."""
        self._put(trace, AnswerRecord(question, "begun", ()))

    def end(self, trace: str, question: str, words: Sequence[CrossedWords], state: State) -> None:
        """Note what crossed with an answer."""
        self._put(trace, AnswerRecord(question, state, words))

    def of(self, traces: Iterable[str]) -> dict[str, AnswerRecord]:
        """Return the records of some answers by their ids; those without one are left out."""
        query = "SELECT trace, question, state, words FROM answer WHERE trace = ?"
        with self._lock:
            rows = list(self._connection.executemany(query, [(trace,) for trace in traces]))
        return {trace: AnswerRecord(question, state, _words(words)) for trace, question, state, words in rows}

    def forget(self, traces: Iterable[str]) -> None:
        """Delete the records of some answers, so that no file has any of them left."""
        with self._writing():
            self._connection.executemany("DELETE FROM answer WHERE trace = ?", [(trace,) for trace in traces])
        self._truncate()

    def quoting(self, sources: Iterable[str]) -> list[str]:
        """Return the ids of the answers that quote one of some documents.

        Args:
            sources: paths of documents, or of folders that they lie in.
        """
        roots = [Path(source) for source in sources]
        with self._lock:
            rows = list(self._connection.execute("SELECT trace, words FROM answer"))
        return [trace for trace, words in rows if any(_lies_in(one.source, roots) for one in _words(words))]

    def _put(self, trace: str, record: AnswerRecord) -> None:
        words = json.dumps([asdict(one) for one in record.words])
        row = (trace, record.question, record.state, words)
        with self._writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO answer (trace, question, state, words) VALUES (?, ?, ?, ?)", row
            )

    def _truncate(self) -> None:
        with self._lock:  # the log still has the pages as they were
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, reported(Path(self._connection.filename)), writing(self._connection):
            yield


def _words(text: str) -> list[CrossedWords]:
    return [CrossedWords(**one) for one in json.loads(text)]


def _lies_in(source: str, roots: Sequence[Path]) -> bool:
    path = Path(source)
    return bool(source) and any(root == path or root in path.parents for root in roots)
