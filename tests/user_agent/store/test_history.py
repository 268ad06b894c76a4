"""Conversations: kept in order, found again, and gone once they are deleted."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest

from ssd2.errors import NotFound
from user_agent.store.history import History


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def opened(file: Path) -> History:
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA journal_mode = WAL")
    return History(connection)


@pytest.fixture
def history(file: Path) -> History:
    return opened(file)


def test_a_conversation_keeps_what_was_said_and_all_that_belongs_to_an_answer(history: History, file: Path) -> None:
    conversation = history.create("The shed")
    data = {"tokens": [{"id": 7, "is_changed": True}], "citations": ["home.md"], "settings": {"λ": 0.3}}
    asked = history.append(conversation.id, "user", "What is my shed code?")
    said = history.append(conversation.id, "assistant", "4711.", trace="answer-1", data=data)
    assert opened(file).messages(conversation.id) == [said, asked]
    assert (asked.role, asked.trace, asked.data) == ("user", "", {})
    assert (said.text, said.trace, said.data) == ("4711.", "answer-1", data)


def test_probabilities_of_an_older_release_come_under_the_names_of_today(history: History) -> None:
    conversation = history.create("The shed")
    old = {"token_id": 7, "core_p": 0.1, "private_p": 0.9, "fused_p": 0.8}
    history.append(conversation.id, "assistant", "4711.", data={"tokens": [old], "figures": {"seconds": 1}})
    (said,) = history.messages(conversation.id)
    assert said.data["tokens"] == [{"token_id": 7, "core_p": 0.1, "user_p": 0.9, "mixed_p": 0.8}]
    assert said.data["figures"] == {"seconds": 1}


def test_the_conversation_that_changed_last_comes_first(history: History) -> None:
    first, second, third = (history.create(title).id for title in "abc")
    assert [found.id for found in history.conversations()] == [third, second, first]
    history.append(second, "user", "Hello?")
    assert [found.id for found in history.conversations()] == [second, third, first]
    history.rename(first, "A")
    assert [found.title for found in history.conversations()] == ["A", "b", "c"]
    assert history.get(first).updated > history.get(first).created


def test_both_lists_come_page_by_page(history: History) -> None:
    ids = [history.create(str(number)).id for number in range(5)]
    assert [found.title for found in history.conversations(offset=1, limit=2)] == ["3", "2"]
    for number in range(5):
        history.append(ids[0], "user", str(number))
    assert [message.text for message in history.messages(ids[0], offset=3, limit=9)] == ["1", "0"]


def test_an_unknown_conversation_is_an_error_and_changes_nothing(history: History) -> None:
    kept = history.create("kept")
    for action in (
        history.get,
        history.messages,
        history.delete,
        lambda unknown: history.rename(unknown, "x"),
        lambda unknown: history.append(unknown, "user", "x"),
    ):
        with pytest.raises(NotFound, match="no conversation 'unknown'"):
            action("unknown")
    assert history.conversations() == [kept]


def test_a_deleted_conversation_is_in_no_file_any_more(history: History, file: Path) -> None:
    """Of an encrypted database no byte can be searched, so this one is not."""

    def kept_bytes() -> bytes:
        return b"".join(path.read_bytes() for path in file.parent.iterdir())

    gone, stays = history.create("Zyxquorv title"), history.create("Other")
    for number in range(50):
        history.append(gone.id, "assistant", f"Blenkitharp {number} " * 100, data={"citation": "Mallory"})
        history.append(stays.id, "user", "Hello?")
    assert all(word in kept_bytes() for word in (b"Zyxquorv", b"Blenkitharp", b"Mallory"))
    history.delete(gone.id)
    assert not any(word in kept_bytes() for word in (b"Zyxquorv", b"Blenkitharp", b"Mallory"))
    assert history.conversations() == [history.get(stays.id)]
    assert len(history.messages(stays.id)) == 50


def test_several_threads_may_use_it_at_once(history: History) -> None:
    conversation = history.create("busy").id

    def talk() -> None:
        for _ in range(50):
            history.append(conversation, "user", "Hello?")
            history.conversations()

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history.messages(conversation, limit=1000)) == 200
