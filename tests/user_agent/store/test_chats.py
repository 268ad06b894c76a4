"""Chats: branched, searched, and answers that read a document forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd2.errors import NotFound
from user_agent.store.database import memory_database, open_database
from user_agent.store.history import History


@pytest.fixture
def history() -> History:
    return History(memory_database())


def spoken(history: History, source: str = "/n/home.md") -> tuple[str, list[str]]:
    """A chat of two questions with an answer each; its id, and those of its messages."""
    chat = history.create("The shed").id
    ids = [history.append(chat, "user", "What is my shed code?").id]
    data = {"citations": [{"text": "The shed code is 4711.", "source": source}], "question": ids[0]}
    ids.append(history.append(chat, "assistant", "It is 4711.", "t1", data).id)
    ids.append(history.append(chat, "user", "And the STRASSE?").id)
    ids.append(history.append(chat, "assistant", "Elm Street.", "t2", {"citations": [], "question": ids[2]}).id)
    return chat, ids


def texts(history: History, chat: str) -> list[str]:
    return [message.text for message in reversed(history.messages(chat))]


def test_a_branch_has_the_beginning_and_leaves_the_chat_as_it_is(history: History) -> None:
    chat, ids = spoken(history)
    whole = texts(history, chat)
    branch = history.branch(chat, ids[1], with_it=True)
    assert (branch.title, texts(history, branch.id)) == ("The shed (branch)", whole[:2])
    assert history.branch(branch.id, history.messages(branch.id)[0].id, with_it=True).title == "The shed (branch)"
    before = history.branch(chat, ids[2], with_it=False)
    history.append(before.id, "user", "And the house?")
    assert texts(history, before.id) == [*whole[:2], "And the house?"]
    assert texts(history, chat) == whole


def test_answers_of_a_branch_belong_to_its_own_questions(history: History) -> None:
    chat, ids = spoken(history)
    answer, question = history.messages(history.branch(chat, ids[1], with_it=True).id)
    assert answer.data["question"] == question.id != ids[0]
    assert answer.trace == "t1"


def test_an_answer_that_was_made_again_later_belongs_to_its_question(history: History) -> None:
    chat, ids = spoken(history)
    again = history.append(chat, "assistant", "4711, I said.", "t3", {"question": ids[0]})
    branch = history.branch(chat, again.id, with_it=True)
    assert texts(history, branch.id) == ["What is my shed code?", "It is 4711.", "4711, I said."]


def test_a_branch_at_a_message_of_another_chat_is_refused_and_makes_none(history: History) -> None:
    chat, _ = spoken(history)
    _, others = spoken(history)
    with pytest.raises(NotFound, match="no message"):
        history.branch(chat, others[0], with_it=True)
    assert len(history.conversations()) == 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("4711", [("assistant", "It is 4711.")]),
        ("CODE shed", [("user", "What is my shed code?")]),
        ("straße", [("user", "And the STRASSE?")]),
        ("the shed", [("title", "The shed")]),
        ("4711 elm", []),
        ("  ", []),
    ],
)
def test_messages_and_titles_with_all_words_are_found(
    history: History, words: str, found: list[tuple[str, str]]
) -> None:
    spoken(history)
    assert [(one.role, one.text) for one in history.search(words)] == found


def test_long_messages_are_found_with_the_words_around(history: History) -> None:
    chat = history.create("Long").id
    history.append(chat, "user", f"{'before ' * 50}needle{' behind' * 50}")
    (found,) = history.search("needle")
    assert found.text.startswith("…")
    assert found.text.endswith("…")
    assert "before needle behind" in found.text


def test_answers_that_read_a_document_are_found_and_deleted_from_the_file(tmp_path: Path) -> None:
    history = History(open_database(tmp_path / "history.sqlite", None))
    chat, ids = spoken(history)
    assert [one.id for one in history.answers_with(["/n"])] == [ids[1]]
    assert [one.id for one in history.answers_with(["/n/home.md"])] == [ids[1]]
    assert history.answers_with(["/m", "/n/home"]) == []
    history.delete_messages([ids[1]])
    assert texts(history, chat) == ["What is my shed code?", "And the STRASSE?", "Elm Street."]
    assert b"4711" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
