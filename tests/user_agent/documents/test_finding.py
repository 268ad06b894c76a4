"""What words and vectors find together, with vectors that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from user_agent.documents.finding import BEST, FEWEST, Cosines, found_by_both, found_by_words
from user_agent.documents.formats.section import Section
from user_agent.documents.index import Match
from user_agent.documents.store import DocumentStore, Reading

RENT = "Die Miete ist bis zum dritten Werktag zu zahlen. Die Kündigungsfrist beträgt drei Monate."


def _cosines(*values: float) -> Cosines:
    return Cosines(np.arange(1, len(values) + 1), np.array(values, np.float32))


def _store(folder: Path, *texts: str) -> DocumentStore:
    store = DocumentStore(folder / "documents.sqlite", None)
    pieces = [Section(text, line) for line, text in enumerate(texts, 1)]
    store.put_upload(Reading(Path("notes.txt"), "indexed", sha256="1", pieces=pieces), b"")
    return store


def test_a_passage_without_a_word_of_the_question_is_found_by_its_vector() -> None:
    usual = [0.75 + 0.001 * (at % 7) for at in range(FEWEST)]
    found = found_by_both([], _cosines(*usual, 0.9))
    assert found.is_found
    assert found.ids[0] == FEWEST + 1


def test_nothing_is_found_where_no_cosine_and_no_word_stands_out() -> None:
    usual = [0.75 + 0.001 * (at % 7) for at in range(FEWEST)]
    found = found_by_both([Match(3, 1.0, 0.1)], _cosines(*usual))
    assert not found.is_found
    assert len(found.ids) > 0  # they can be shown, though none is given to the model


def test_words_count_beside_vectors() -> None:
    usual = [0.75 + 0.001 * (at % 7) for at in range(FEWEST)]
    found = found_by_both([Match(5, 9.0, 1.0)], _cosines(*usual))
    assert found.ids[0] == 5


def test_a_passage_without_a_vector_yet_is_found_by_words() -> None:
    assert 99 in found_by_both([Match(99, 9.0, 1.0)], _cosines(0.7, 0.7, 0.7)).ids


def test_the_best_passages_are_found_however_far_behind_and_more_if_near() -> None:
    scores = [9.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = found_by_words([Match(at, score, 1.0) for at, score in enumerate(scores)])
    assert list(found.ids) == list(range(BEST))
    near = found_by_words([Match(at, 9.0 - 0.1 * at, 1.0) for at in range(7)])
    assert len(near.ids) == 7


@pytest.mark.parametrize("question", ["Kündigung?", "Welche Frist?", "Mietzahlung", "gekündigt", "MIETE"])
def test_german_compounds_and_forms_are_found(tmp_path: Path, question: str) -> None:
    store = _store(tmp_path, RENT, "Der Keller ist nass.")
    assert [one.text for one in store.search(question)][:1] == [RENT]


def test_a_question_about_nothing_there_finds_nothing_but_can_show_the_closest(tmp_path: Path) -> None:
    store = _store(tmp_path, "The key is in the drawer.", "The plumber is Ada Stone.")
    question = "Which train goes from the drawer to Edinburgh on Sunday morning?"
    assert store.search(question) == []
    passages, is_found = store.find(question)
    assert (passages[0].text, is_found) == ("The key is in the drawer.", False)


def test_vectors_go_with_their_passages_and_a_search_sees_new_ones(tmp_path: Path) -> None:
    store = _store(tmp_path, "One.", "Two.")
    (first, _), (second, _) = store.without_vector(9)
    store.put_vectors([first, second], np.eye(2, dtype=np.float32))
    assert store.without_vector(9) == []
    assert store.find("zzz", None, np.array([0, 1], np.float32))[0][0].text == "Two."
    store.put_vectors([first, second], np.eye(2, dtype=np.float32)[::-1])
    assert store.find("zzz", None, np.array([0, 1], np.float32))[0][0].text == "One."
    document_id = store.documents()[0].id
    assert store.find("zzz", [document_id + 1], np.array([0, 1], np.float32))[0] == []
    store.remove(document_id)
    assert store.find("zzz", None, np.array([0, 1], np.float32))[0] == []
    store.put_vectors([first], np.eye(1, 2, dtype=np.float32))  # its passage is gone
    assert store.find("zzz", None, np.array([0, 1], np.float32))[0] == []
