"""Records of answers: kept by id, deleted for good."""

from __future__ import annotations

from pathlib import Path

from user_agent.store.answers import AnswerRecord, AnswerRecords, CrossedWords
from user_agent.store.database import memory_database, open_database

WORDS = [CrossedWords("Hazel Hammer", "/n/appointments.md", "appointments.md:3")]


def test_a_record_grows_from_its_question_to_its_words() -> None:
    records = AnswerRecords(memory_database())
    records.begin("a", "Where?")
    assert records.of(["a", "b"]) == {"a": AnswerRecord("Where?", "begun", [])}
    records.end("a", "Where?", WORDS, "whole")
    assert records.of(["a"]) == {"a": AnswerRecord("Where?", "whole", WORDS)}


def test_answers_that_quote_a_document_or_a_folder_are_found() -> None:
    records = AnswerRecords(memory_database())
    records.end("a", "Where?", WORDS, "whole")
    records.end("b", "Who?", [CrossedWords("Rosebud", "", "private context")], "whole")
    assert [records.quoting([path]) for path in ("/n/appointments.md", "/n", "/n/app", "/m", "/")] == [
        ["a"], ["a"], [], [], ["a"],
    ]  # fmt: skip


def test_what_was_forgotten_is_in_no_file(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "answers.sqlite", None)
    records = AnswerRecords(connection)
    records.end("a", "Where is it?", WORDS, "whole")
    records.forget(["a"])
    assert records.of(["a"]) == {}
    assert b"Hazel Hammer" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    connection.close()
