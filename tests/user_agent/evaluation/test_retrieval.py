from __future__ import annotations

from collections import Counter

from ssd2.evaluation.documents.questions import FILES
from user_agent.documents.reader import read_documents
from user_agent.evaluation.retrieval import WITHOUT_DOCUMENT, evaluate
from user_agent.evaluation.retrieval_questions import retrieval_questions


def test_each_answer_stands_in_a_passage_and_ids_are_unique() -> None:
    passages = read_documents(sorted(FILES.iterdir())).passages
    questions = retrieval_questions()
    assert not [one.id for one in questions if one.parts and one.recall(passages) < 1]
    assert max(Counter(one.id for one in questions).values()) == 1


def test_there_are_enough_questions_of_each_sort() -> None:
    counts = Counter((bool(one.parts), one.language) for one in retrieval_questions())
    assert counts[True, "en"] >= 100
    assert counts[True, "de"] >= 50
    assert sum(one.kind in WITHOUT_DOCUMENT for one in retrieval_questions()) >= 40


def test_words_alone_reach_the_recall_that_is_promised() -> None:
    rows = {row.questions: row for row in evaluate(None) if row.search == "words"}
    for language in ("en", "de"):
        assert (rows[f"answerable, {language}"].recall_5 or 0) >= 0.85
    assert rows["nothing there"].nothing_found >= 0.8
