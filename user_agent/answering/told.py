"""One answer in words: what was asked, and what whoever runs the core now knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from user_agent.answering.disclosure import no_record, now_knows, now_knows_lead
from user_agent.store.answers import AnswerRecord, CrossedWords, State
from user_agent.store.ledger import AnswerTraffic

if TYPE_CHECKING:
    from user_agent.answering.service import Answered


def told_with(answered: Answered) -> dict[str, Any] | None:
    """Describe what the core knows from an answer; None if nothing was sent for it."""
    if not answered.sent_to:
        return None
    words = answered.crossed_words
    return {**_sentence(answered.sent_to, words, "whole"), "words": [asdict(one) for one in words]}


def told_by(answer: AnswerTraffic, record: AnswerRecord | None) -> dict[str, Any]:
    """Describe an answer of the ledger.

    Args:
        answer: what crossed for it.
        record: of it; None if there is none, as after its chat was deleted.

    Returns:
        trace, question, says, lead, words, state, time, destinations, first_seq, last_seq, totals.
    """
    if record is None:
        said = dict.fromkeys(("says", "lead"), no_record(answer.destinations))
        return {**said, **vars(answer), "question": None, "words": [], "state": None}
    return {**_sentence(answer.destinations, record.words, record.state), **vars(answer), **vars(record)}


def _sentence(addresses: Sequence[str], words: Sequence[CrossedWords], state: State) -> dict[str, str]:
    return {
        "says": now_knows(addresses, words, state),
        "lead": now_knows_lead(addresses, state, has_words=bool(words)),
    }
