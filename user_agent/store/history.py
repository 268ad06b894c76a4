"""Conversations that were had with the agent, kept on the device."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
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


@dataclass(frozen=True)
class Found:
    """A message or a title that was looked for.

    Attributes:
        conversation: its id.
        title: of the conversation.
        updated: when the conversation changed last.
        message: its id; "" of a title.
        role: who said it; "title" of a title.
        text: words around what was found.
    """

    conversation: str
    title: str
    updated: str
    message: str
    role: Literal["user", "assistant", "title"]
    text: str


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

    def branch(self, conversation: str, message: str, *, with_it: bool) -> Conversation:
        """Begin a conversation with the beginning of another one, which stays as it is.

        Args:
            conversation: the other one.
            message: id of a message; its question is the last one that is taken over, with its answers.
            with_it: False to take over only the questions before it, with theirs.

        Raises:
            NotFound: if there is no such conversation, or no such message in it.
        """
        with self._lock:
            before = self._get(conversation)
        turns = _turns(self.messages(conversation, limit=-1)[::-1])
        at = next((place for place, turn in enumerate(turns) if message in [one.id for one in turn]), None)
        if at is None:
            raise NotFound(f"conversation {conversation!r} has no message {message!r}", parameter="message")
        branch, names = self.create(f"{before.title.removesuffix(BRANCH)}{BRANCH}"), dict[str, str]()
        for one in chain.from_iterable(turns[: at + 1] if with_it else turns[:at]):
            data = {**one.data, "question": names.get(one.data.get("question", ""), "")} if one.data else {}
            names[one.id] = self.append(branch.id, one.role, one.text, one.trace, data).id
        return self.get(branch.id)

    def search(self, words: str, limit: int = 50) -> list[Found]:
        """Find the messages and titles that have all of some words, whatever their case; the latest chat comes first.

        Args:
            words: to look for; each may be a part of a word.
            limit: how many at most.
        """
        wanted = words.casefold().split()
        query = (
            "SELECT conversation.id, title, updated, message.id, message.role, message.text FROM conversation "
            "LEFT JOIN message ON message.conversation = conversation.id "
            "ORDER BY updated DESC, conversation.number DESC, message.number"
        )
        found: list[Found] = []
        with self._lock:
            for conversation, title, updated, message, role, text in self._connection.execute(query):
                is_new = not found or found[-1].conversation != conversation
                excerpt = _excerpt(text or "", wanted)
                if excerpt is None and is_new and wanted and _has(title, wanted):
                    excerpt, message, role = title, "", "title"
                if excerpt is not None:
                    found.append(Found(conversation, title, updated, message, role, excerpt))
                if len(found) == limit:
                    break
        return found

    def answers_with(self, sources: Iterable[str]) -> list[Message]:
        """Return the answers for which the user model read something of some documents.

        Args:
            sources: paths of documents, or of folders that they lie in.
        """
        roots = [Path(source) for source in sources]
        with self._lock:
            rows = list(self._connection.execute(f"{_MESSAGE} WHERE role = 'assistant'"))
        return [message for message in map(_message, rows) if _reads(message, roots)]

    def delete_messages(self, messages: Iterable[str]) -> None:
        """Delete messages by their ids, so that no file has any of them left."""
        with self._writing():
            self._connection.executemany("DELETE FROM message WHERE id = ?", [(one,) for one in messages])
        self._truncate()

    def traces(self, conversation: str) -> list[str]:
        """Return the ids of the answers in a conversation, as the ledger has them."""
        query = "SELECT trace FROM message WHERE conversation = ? AND trace != ''"
        with self._lock:
            return [trace for (trace,) in self._connection.execute(query, (conversation,))]

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
        self._truncate()

    def _truncate(self) -> None:
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


BRANCH = " (branch)"
"""Ends the title of a branch."""

_AROUND = 80
"""Characters shown on each side of what was found."""


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Return each question with its answers; one that was made again later stands behind other questions."""
    turns: list[list[Message]] = []
    for message in messages:
        of = message.data.get("question") if message.role == "assistant" else None
        asked = [turn for turn in turns if turn[0].id == of]
        if message.role == "user" or not turns:
            turns.append([message])
        else:
            (asked or turns[-1:])[0].append(message)
    return turns


def _has(text: str, wanted: Sequence[str]) -> bool:
    folded = text.casefold()
    return all(word in folded for word in wanted)


def _excerpt(text: str, wanted: Sequence[str]) -> str | None:
    """Return the words around the first word that was looked for; None unless all of them are in the text."""
    if not wanted or not _has(text, wanted):
        return None
    at = min(max(text.lower().find(word), 0) for word in wanted)
    start, end = max(0, at - _AROUND), at + _AROUND
    shown = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def _reads(message: Message, roots: Sequence[Path]) -> bool:
    citations = message.data.get("citations")
    sources = (
        [Path(str(one.get("source", ""))) for one in citations if isinstance(one, dict)]
        if isinstance(citations, list)
        else []
    )
    return any(root == source or root in source.parents for source in sources for root in roots)
