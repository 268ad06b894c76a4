"""Which passages a question finds, kept or not: one search."""

from __future__ import annotations

from pathlib import Path

import pytest

from user_agent.documents import index
from user_agent.documents.formats.section import Section
from user_agent.documents.passage import Passage, told_in_order
from user_agent.documents.search import search
from user_agent.documents.store import DocumentStore, Reading


def _passages(*texts: str) -> list[Passage]:
    return [Passage(text, Path("notes.md"), number) for number, text in enumerate(texts, start=1)]


def _store(folder: Path, *texts: str) -> DocumentStore:
    """A document a text."""
    store = DocumentStore(folder / "documents.sqlite", None)
    for number, text in enumerate(texts):
        store.put_upload(Reading(Path(f"{number}.txt"), "indexed", sha256=str(number), pieces=[Section(text, 1)]), b"")
    return store


def test_the_passage_with_the_rare_words_comes_first() -> None:
    passages = _passages("My book is red.", "My dentist appointment is at Amber Arch.", "My dentist is Ada Stone.")
    found = search(passages, "When is my dentist appointment?")
    assert found[0] == passages[1]


def test_passages_that_share_but_common_words_are_left_out() -> None:
    common = [f"My {thing} is in the {place}." for thing, place in zip("abcdefgh", "ijklmnop", strict=True)]
    passages = _passages(*common, "My dentist appointment is at Amber Arch.")
    assert search(passages, "Where is my dentist appointment?") == [passages[-1]]


def test_words_are_compared_by_stem_and_without_accents() -> None:
    passages = _passages("The appointments are on Monday.", "Café Noir is shut.")
    assert search(passages, "appointment") == [passages[0]]
    assert search(passages, "cafe") == [passages[1]]


@pytest.mark.parametrize("question", ['"', "NEAR(", "a* OR b", "text:secret", "-", "", "'; DROP TABLE passage; --"])
def test_no_question_is_read_as_query_syntax(question: str) -> None:
    assert search(_passages("Nothing of the kind."), question) == []


def test_no_match_gives_no_passage() -> None:
    assert search(_passages("My plumber is Ada Stone."), "weather tomorrow") == []


@pytest.mark.parametrize("question", ["When is my dentist appointment?", "amber stone", "my", "appointments"])
def test_the_store_finds_what_a_search_without_it_finds(tmp_path: Path, question: str) -> None:
    texts = ("My book is red.", "My dentist appointment is at Amber Arch.", "My dentist is Ada Stone.")
    kept = _store(tmp_path, *texts).search(question)
    assert [passage.text for passage in kept] == [passage.text for passage in search(_passages(*texts), question)]


def test_only_the_documents_asked_for_are_searched(tmp_path: Path) -> None:
    store = _store(tmp_path, "The key is in the drawer.", "The key is in the car.", "Nothing.")
    first, second, third = (document.id for document in store.documents())
    assert [passage.text for passage in store.search("key", [second])] == ["The key is in the car."]
    assert len(store.search("key", [first, second])) == 2
    assert store.search("key", [third]) == store.search("key", []) == []


def test_a_common_word_neither_slows_a_search_down_nor_hides_a_rare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMON", 10)
    common = [f"The book number {number} is in the house." for number in range(20)]
    passages = _passages(*common, "The key hangs by the door of the house.")
    assert search(passages, "Where in the house is the key?") == [passages[-1]]
    assert len(search(passages, "the house")) == 21  # no word is rare: all of them count
    assert len(search(passages, "the house, xylophones")) == 21  # a word that is nowhere is not rare


def test_a_rare_word_costs_no_work_on_the_common_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMON", 10)
    passages = _passages(*[f"The book {number} is here." for number in range(20)], "The key is here.")
    asked: list[str] = []
    any_of = index._any_of

    def spy(words: list[str]) -> str:
        asked.append(any_of(words))
        return asked[-1]

    monkeypatch.setattr(index, "_any_of", spy)
    assert search(passages, "the key") == [passages[-1]]
    assert asked[-1] == '"key"'


def test_no_more_passages_are_found_than_any_context_holds() -> None:
    assert len(search(_passages(*[f"The key {number}." for number in range(500)]), "key")) == index.MOST


def test_headings_that_passages_share_are_told_once_where_they_stand_together() -> None:
    headings = ("A", "A: B", "A: B", "A", "A", "C", "", "A")
    passages = [Passage(str(at), Path("a.md"), at, heading=heading) for at, heading in enumerate(headings)]
    assert told_in_order(passages) == ["A: 0", "B: 1", "2", "A: 3", "4", "C: 5", "6", "A: 7"]
    assert told_in_order([passages[0], Passage("x", Path("b.md"), 1, heading="A")]) == ["A: 0", "A: x"]
    assert told_in_order([passages[1], Passage("x", Path("a.md"), 9, heading="A: D")]) == ["A: B: 1", "D: x"]
