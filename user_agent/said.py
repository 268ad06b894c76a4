"""What the command line keeps of a conversation, in the form in which the page keeps it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from user_agent.answer import Answer
from user_agent.documents.passage import Passage
from user_agent.history import History
from user_agent.traces import passage_json, token_json

LONGEST_TITLE = 80


def keep_answer(
    history: History,
    question: str,
    answer: Answer,
    passages: Sequence[Passage],
    trace: str,
    conversation: str | None = None,
) -> str:
    """Keep a question and its answer.

    Args:
        history: where.
        question: what was asked.
        answer: to it.
        passages: that the user model had.
        trace: id of the answer in the ledger.
        conversation: that it belongs to; None for a new one.

    Returns:
        The conversation's id.
    """
    kept = conversation or history.create(question[:LONGEST_TITLE]).id
    figures = asdict(answer)
    del figures["text"], figures["tokens"]
    history.append(kept, "user", question)
    history.append(
        kept,
        "assistant",
        answer.text,
        trace,
        {
            "tokens": [token_json(token) for token in answer.tokens],
            "citations": [passage_json(passage) for passage in passages],
            "figures": figures,
        },
    )
    return kept
