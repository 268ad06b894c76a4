"""Scorer and data of the benchmark `documents`, on answers written by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from ssd2.evaluation.documents.questions import FACTUAL_KINDS, FILES, KINDS, Question, read_documents, read_questions
from ssd2.evaluation.documents.scorer import is_right, normalised


def asked(*accepted: str, forbidden: tuple[str, ...] = (), kind: str = "fact") -> Question:
    parts = tuple(tuple(part.split("/")) for part in accepted)
    return Question("q", "?", "en", kind, parts, forbidden)


DATE = asked("2026-03-14", kind="date")
SUM = asked("1240", kind="sum")
PRICE = asked("14.50", kind="sum")
NAME = asked("orange juice")
COUNT = asked("4 weeks")
BOTH = asked("2026-02-05", "celery/fennel", kind="two-documents")
OTHER_FORBIDDEN = asked("2026-03-14", forbidden=("2026-03-15",), kind="date")
ABSENT = asked(kind="absent")

RIGHT = [
    (DATE, "It is on 14 March."),
    (DATE, "On the 14th of March, 2026"),
    (DATE, "march 14th"),
    (DATE, "March 14, 2026."),
    (DATE, "Mar. 14"),
    (DATE, "2026-03-14"),
    (DATE, "Am 14.3. um neun"),
    (DATE, "Am 14.03.2026."),
    (DATE, "am 14. März 2026"),
    (DATE, "14/03/2026"),
    (DATE, "Saturday, 14 March at 9:00"),
    (DATE, "It is not 15 March but 14 March."),
    (SUM, "The rent is £1,240."),
    (SUM, "1240 pounds"),
    (SUM, "1.240,00 Euro"),
    (SUM, "It costs 1,240.00 pounds a month."),
    (PRICE, "14.5 pounds"),
    (PRICE, "It costs £14.50."),
    (PRICE, "14,50 €"),
    (NAME, "With a glass of **Orange\n juice**!"),
    (COUNT, "about four weeks"),
    (asked("25"), "twenty-five minutes"),
    (asked("65"), "65min, then it rests"),
    (asked("8:40"), "At 08:40 a.m."),
    (asked("8:40"), "At 8:40am"),
    (asked("20:40"), "At 8:40 p.m."),
    (asked("not drain"), "The water doesn't drain."),
    (asked("rear tyre"), "The bike's rear-tyre is worn"),
    (asked("h2o"), "Its formula is H₂O."),
    (asked("cb14-77-20934"), "CB14-77-20934"),
    (BOTH, "On February 5th, and Jules is allergic to celery."),
    (OTHER_FORBIDDEN, "14 March, not 15 March"),
    (ABSENT, "The notes don't mention it."),
    (ABSENT, "That is not specified in the document."),
    (ABSENT, "I do not know."),
    (ABSENT, "There is no information about the pilot."),
    (ABSENT, "The letter cannot tell us, sorry."),
    (ABSENT, "Das steht in den Unterlagen nicht."),
    (ABSENT, "Dazu gibt es keine Angaben."),
    (ABSENT, "Das ist nicht bekannt."),
]
WRONG = [
    (DATE, "It is not 14 March but 15 March."),
    (DATE, "It is not on the 14th of March."),
    (DATE, "It isn't on 14 March."),
    (DATE, "15 March rather than 14 March"),
    (DATE, "nicht am 14. März, sondern am 15. März"),
    (DATE, "14 April"),
    (DATE, "4 March"),
    (DATE, "14 March 2025"),
    (DATE, "14 minutes, in March"),
    (DATE, "140 March"),
    (SUM, "12,400"),
    (SUM, "1,240.50"),
    (SUM, "124"),
    (SUM, "11,240 pounds"),
    (PRICE, "14 pounds"),
    (PRICE, "14.55"),
    (PRICE, "214.50"),
    (NAME, "orange"),
    (NAME, "juice of an orange"),
    (NAME, "orange juices"),
    (COUNT, "forty weeks"),
    (COUNT, "twenty-four weeks"),
    (asked("8:40"), "At 18:40"),
    (asked("8:40"), "At 8:40pm."),
    (asked("8:40"), "At 8:40 PM."),
    (asked("8:40"), "At 8:45, room 40"),
    (asked("not drain"), "Clean the drain"),
    (asked("rome"), "Romeo"),
    (asked("cb14-77-20934"), "CB14-77-2093"),
    (BOTH, "On 5 February."),
    (BOTH, "Celery."),
    (BOTH, "5 February, and not celery"),
    (OTHER_FORBIDDEN, "14 March or 15 March"),
    (ABSENT, "The pilot is Captain Hughes."),
    (ABSENT, "On 3 March 2026."),
    (ABSENT, ""),
    (ABSENT, "Children may not bring phones."),
    (NAME, ""),
]


@pytest.mark.parametrize(("question", "answer"), RIGHT)
def test_a_right_answer_counts_however_it_is_written(question: Question, answer: str) -> None:
    assert is_right(question, answer), normalised(answer)


@pytest.mark.parametrize(("question", "answer"), WRONG)
def test_a_near_miss_does_not_count(question: Question, answer: str) -> None:
    assert not is_right(question, answer), normalised(answer)


def test_there_are_enough_documents_and_questions_of_every_kind() -> None:
    questions, documents = read_questions(), read_documents()
    kinds = Counter(question.kind for question in questions)
    assert set(kinds) == set(KINDS)
    assert len(documents) >= 20
    assert sum(kinds[kind] for kind in (*FACTUAL_KINDS, "absent")) >= 60
    assert kinds["public"] >= 8
    assert kinds["two-source"] >= 100
    assert {name.rpartition(".")[2] for name in documents} == {"md", "txt", "html", "csv", "eml", "docx", "pdf", "json"}
    assert len({question.id for question in questions}) == len(questions)
    assert len({question.text for question in questions}) == len(questions)
    assert {question.language for question in questions} == {"en", "de"}


def test_every_document_is_used_and_has_its_file() -> None:
    documents = read_documents()
    assert {name for question in read_questions() for name in question.documents} == set(documents)
    assert {file.name for file in FILES.iterdir()} == set(documents)


def test_every_factual_answer_stands_in_its_documents() -> None:
    documents = read_documents()
    for question in read_questions():
        if question.is_factual:
            text = " ".join(passage for name in question.documents for passage in documents[name])
            without_forbidden = Question(question.id, "", "en", question.kind, question.accepted)
            assert is_right(without_forbidden, text), question


def test_no_note_gives_its_answer_away() -> None:
    for question in read_questions():
        assert not is_right(question, question.note), question
        assert not is_right(question, question.text), question
