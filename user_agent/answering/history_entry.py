"""What the command line keeps of a conversation, in the form in which the page keeps it too."""

from __future__ import annotations

from dataclasses import asdict

from user_agent.answering.answer import Answer
from user_agent.answering.run import Question
from user_agent.answering.traces import fit_json, passage_json, token_json
from user_agent.store.history import History

LONGEST_TITLE = 80


def keep_answer(
    history: History,
    question: Question,
    answer: Answer,
    trace: str,
    conversation: str | None = None,
) -> str:
    """Keep a question and its answer.

    Args:
        history: where.
        question: what was asked, with the passages that the user model had.
        answer: to it.
        trace: id of the answer in the ledger.
        conversation: that it belongs to; None for a new one.

    Returns:
        The conversation's id.
    """
    kept = conversation or history.create(question.instruction[:LONGEST_TITLE]).id
    figures = asdict(answer)
    del figures["text"], figures["tokens"]
    history.append(kept, "user", question.instruction)
    history.append(
        kept,
        "assistant",
        answer.text,
        trace,
        {
            "tokens": [token_json(token) for token in answer.tokens],
            "citations": [passage_json(passage) for passage in question.passages],
            **fit_json(question),
            "figures": figures,
        },
    )
    return kept
