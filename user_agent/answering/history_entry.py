"""Conversations of the command line, stored in the page's form."""

from __future__ import annotations

from dataclasses import asdict

from user_agent.answering.chats import title_of
from user_agent.answering.service import Answered
from user_agent.answering.told import told_with
from user_agent.answering.traces import conflicts_json, fit_json, passage_json
from user_agent.store.history import History


def keep_answer(history: History, answered: Answered, trace: str, conversation: str | None = None) -> str:
    """Keep a question and its answer.

    Args:
        history: where.
        answered: both, with the passages that the user model had.
        trace: id of the answer in the ledger.
        conversation: id of the one that goes on; None begins another.

    Returns:
        The conversation's id.
    """
    question = answered.question
    kept = conversation or history.create(title_of(question.instruction)).id
    history.append(kept, "user", question.instruction)
    history.append(
        kept,
        "assistant",
        answered.text,
        trace,
        {
            "tokens": [asdict(token) for token in answered.answer.tokens],
            "citations": [passage_json(passage) for passage in question.passages],
            "conflicts": conflicts_json(answered.conflicts),
            **fit_json(question),
            "has_crossed": answered.has_crossed,
            "told": told_with(answered),
            "figures": answered.answer.figures,
        },
    )
    return kept
