"""Conversations that were had with the agent, kept on the device."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import apsw

from ssd2.errors import NotFound
from user_agent.store.database import reported, writing

Role: TypeAlias = Literal["user", "assistant"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conversation (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS message (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    text TEXT NOT NULL,
    created TEXT NOT NULL,
    trace TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS message_by_conversation ON message (conversation, number);
"""

_CONVERSATION = "SELECT id, title, created, updated FROM conversation"
_MESSAGE = "SELECT id, conversation, role, text, created, trace, data FROM message"


@dataclass(frozen=True)
class Conversation:
    """A conversation; times are UTC, ISO 8601.

    Attributes:
        id: chosen here.
        title: as the user sees it in a list.
        created: when it began.
        updated: when something was last said or the title changed.
    """

    id: str
    title: str
    created: str
    updated: str


@dataclass(frozen=True)
class Message:
    """Something said in a conversation.

    Attributes:
        id: chosen here.
        conversation: its id.
        role: who said it.
        text: what.
        created: when; UTC, ISO 8601.
        trace: id of the answer, as in the ledger; "" of a question.
        data: of an answer, such as its tokens, citations and settings; anything that JSON can say.
    """

    id: str
    conversation: str
    role: Role
    text: str
    created: str
    trace: str
    data: dict[str, Any]


class History:
    """Conversations in a database of their own. Safe to use from several threads.

    Whatever writes raises `StoreUnreadable` if it cannot, and then all is as it was before.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        """Open a history, or begin one.

        Args:
            connection: used by nothing else.
        """
        self._connection, self._lock = connection, threading.Lock()
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what was deleted is overwritten
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'message_by_conversation'").fetchone():
            with self._writing():
                connection.execute(_SCHEMA)

    def create(self, title: str) -> Conversation:
        """Begin a conversation."""
        conversation = Conversation(uuid.uuid4().hex, title, now := _now(), now)
        values = (conversation.id, title, now, now)
        with self._writing():
            self._connection.execute(
                "INSERT INTO conversation (id, title, created, updated) VALUES (?, ?, ?, ?)", values
            )
        return conversation

    def get(self, conversation: str) -> Conversation:
        """One conversation.

        Raises:
            NotFound: if there is none of that id.
        """
        with self._lock:
            return self._get(conversation)

    def conversations(self, offset: int = 0, limit: int = 50) -> list[Conversation]:
        """Conversations, the one that changed last first."""
        query = f"{_CONVERSATION} ORDER BY updated DESC, number DESC LIMIT ? OFFSET ?"
        with self._lock:
            return [Conversation(*row) for row in self._connection.execute(query, (limit, offset))]

    def rename(self, conversation: str, title: str) -> Conversation:
        """Give a conversation another title.

        Raises:
            NotFound: if there is none of that id.
        """
        with self._writing():
            self._touch(conversation)
            self._connection.execute("UPDATE conversation SET title = ? WHERE id = ?", (title, conversation))
            return self._get(conversation)

    def append(
        self, conversation: str, role: Role, text: str, trace: str = "", data: dict[str, Any] | None = None
    ) -> Message:
        """Add what was said last.

        Raises:
            NotFound: if there is no conversation of that id.
        """
        message = Message(uuid.uuid4().hex, conversation, role, text, _now(), trace, data or {})
        row = (message.id, conversation, role, text, message.created, trace, json.dumps(message.data))
        with self._writing():
            self._touch(conversation)
            self._connection.execute(
                "INSERT INTO message (id, conversation, role, text, created, trace, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return message

    def messages(self, conversation: str, offset: int = 0, limit: int = 200) -> list[Message]:
        """Return the messages of a conversation, the last first.

        Raises:
            NotFound: if there is none of that id.
        """
        query = f"{_MESSAGE} WHERE conversation = ? ORDER BY number DESC LIMIT ? OFFSET ?"
        with self._lock:
            self._get(conversation)
            rows = self._connection.execute(query, (conversation, limit, offset))
            return [_message(row) for row in rows]

    def answers(self) -> list[str]:
        """Return the texts of all answers."""
        with self._lock:
            rows = self._connection.execute("SELECT text FROM message WHERE role = 'assistant'")
            return [str(text) for (text,) in rows]

    def delete(self, conversation: str) -> None:
        """Delete a conversation with all that was said in it, so that neither file has any of it left.

        Raises:
            NotFound: if there is none of that id.
        """
        with self._writing():
            self._get(conversation)
            self._connection.execute("DELETE FROM conversation WHERE id = ?", (conversation,))
        with self._lock:  # the log still has the pages as they were
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _get(self, conversation: str) -> Conversation:
        row = self._connection.execute(f"{_CONVERSATION} WHERE id = ?", (conversation,)).fetchone()
        if row is None:
            raise NotFound(
                f"there is no conversation {conversation!r}; it may have been deleted", parameter="conversation"
            )
        return Conversation(*row)

    def _touch(self, conversation: str) -> None:
        """Make a conversation the one that changed last."""
        self._get(conversation)
        self._connection.execute("UPDATE conversation SET updated = ? WHERE id = ?", (_now(), conversation))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, reported(Path(self._connection.filename)), writing(self._connection):
            yield


def _message(row: tuple[Any, ...]) -> Message:
    message_id, conversation, role, text, created, trace, data = row
    return Message(message_id, conversation, role, text, created, trace, _renamed(json.loads(data)))


_RENAMED = {"private_p": "user_p", "fused_p": "mixed_p"}
"""Names of a token's probabilities in messages of version 0.1."""


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept beside a message under the names of today."""
    if not isinstance(tokens := data.get("tokens"), list):
        return data
    named = [
        {_RENAMED.get(name, name): value for name, value in token.items()} if isinstance(token, dict) else token
        for token in tokens
    ]
    return {**data, "tokens": named}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
