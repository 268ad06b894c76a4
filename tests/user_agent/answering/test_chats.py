"""Titles that say something, and chats as files."""

from __future__ import annotations

import pytest

from user_agent.answering.chats import LONGEST_TITLE, as_json, as_markdown, title_of
from user_agent.store.database import memory_database
from user_agent.store.history import History


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("Where is my dentist appointment?", "Where is my dentist appointment?"),
        ("Hello, can you please tell me when the shed was built?", "When the shed was built?"),
        ("Kannst du mir bitte sagen, wo mein Zahnarzt ist?", "Wo mein Zahnarzt ist?"),
        ("Please summarise the lease. It is long, and I do not read German.", "Summarise the lease."),
        ("# Notes\n\n*What* is `due`?", "Notes What is due?"),
        ("Hello", "Hello"),
        ("Whose turn is it?  ", "Whose turn is it?"),
        ("so what", "What"),
        ("  ", "Chat"),
    ],
)
def test_a_title_is_the_first_sentence_without_courtesies(question: str, title: str) -> None:
    assert title_of(question) == title


def test_a_long_title_ends_with_a_whole_word() -> None:
    title = title_of("What does the insurance of the house in Fern Street say about water that comes from below?")
    assert title == "What does the insurance of the house in Fern Street say…"
    assert len(title) <= LONGEST_TITLE + 1


def test_both_exports_have_questions_answers_passages_and_what_is_known() -> None:
    history = History(memory_database())
    chat = history.create("The shed").id
    history.append(chat, "user", "What is my shed code?")
    data = {
        "citations": [{"text": "The shed\ncode is 4711.", "source": "/n/home.md", "line": 3, "page": None}],
        "told": {"says": "example.org now knows it.", "lead": "", "words": []},
    }
    history.append(chat, "assistant", "It is **4711**.", "t1", data)
    history.append(chat, "user", "one\ntwo")
    messages = history.messages(chat)[::-1]
    found = history.get(chat)
    lines = as_markdown(found, messages).splitlines()
    assert lines[0] == "# The shed"
    assert [line for line in lines[3:] if line] == [
        "## What is my shed code?", "It is **4711**.", "Passages read:", "- home.md:3: The shed code is 4711.",
        "*example.org now knows it.*", "> one", "> two",
    ]  # fmt: skip
    exported = as_json(found, messages)
    assert (exported["title"], exported["messages"][1]["data"]) == ("The shed", data)
