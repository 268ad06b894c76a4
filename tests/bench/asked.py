"""The questions that benchmarks ask, and how: the one place where a setting of ours is switched on or off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.generator import Item
from ssd2.evaluation.rows import ROWS
from user_agent.answering.decoding import decoding_for
from user_agent.answering.request import AnswerSettings
from user_agent.answering.run import Question
from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage

QUESTION: dict[str, Any] = {"speculation": 4}
"""Fields of `Question` beside what is asked and its `DecodingParams`, as `user-agent ask` has them."""

COLLABORATION = CollaborationParams(0.3, 1.0)

THREADS = 1
"""Of each process that computes. The demo's models are too small to gain by more, and two processes with as many
threads each as there are cores wait for one another."""


def asked_items(count: int) -> list[Item]:
    """Questions that neither model can answer alone, unseen in training: the fact first, then the place."""
    return ROWS["reverse"].items(count, 0)


def question(user: UserModel, item: Item, number: int, max_tokens: int | None = None, **changed: Any) -> Question:
    """A question about an item's notes.

    Args:
        user: the user model.
        item: with notes and instruction.
        number: seed of the answer.
        max_tokens: longest answer; None: the default.
        **changed: fields that are not as in `QUESTION`.
    """
    settings = AnswerSettings() if max_tokens is None else AnswerSettings(max_tokens=max_tokens)
    params = decoding_for(settings, user.config)
    notes = [Passage(note, Path("notes.md"), line) for line, note in enumerate(item.notes, 1)]
    passages = user.fitting(item.question, notes, params.max_answer_tokens).passages
    return Question(
        item.question, passages, COLLABORATION, params, Seeds.reproducible(number), **{**QUESTION, **changed}
    )


def committed_tokens(answer_tokens: int, params: DecodingParams) -> int:
    """Tokens of the blocks that an answer took, whose last one holds its EOS if there is room for it.

    Args:
        answer_tokens: of the answer, before its EOS.
        params: L and the number of blocks.
    """
    return min(answer_tokens // params.block_size + 1, params.max_blocks) * params.block_size
