"""Layouts of an answer: in which order it says what the notes tell and what follows from it.

A causal model has of its partner only what stands in the answer. Where the notes say "the capital of Portugal" and only
the core knows Lisbon, the core has to read the fact before the answer to it is due. So the fact comes first.
See docs/decisions/058-the-fact-first.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from ssd2.models.chat import Message

AnswerLayout: TypeAlias = Literal["plain", "fact-first"]
"""What an answer begins with: the answer itself, or the fact of the notes that it rests on."""

LAYOUTS: tuple[AnswerLayout, ...] = get_args(AnswerLayout)

NOTE, ANSWER = "Note:", "That is:"
"""Marks of the layout "fact-first". The first ends the prompt; the models write the second."""

_EXAMPLES = (
    (
        "Which town does the new trainer come from?",
        "The new trainer comes from the town where the Beatles began.",
        "Liverpool.",
    ),
    ("What is the number of the locker?", "The number of the locker is that of the players in a football team.", "11."),
    (
        "Welches Tier ist das Maskottchen der Schule?",
        "Das Maskottchen der Schule ist das Pferd mit den Streifen.",
        "das Zebra.",
    ),
)
"""Question, fact and answer: invented, the same for everybody, and none of them an answer of a benchmark."""


def laid_out(messages: Sequence[Message], layout: AnswerLayout) -> list[Message]:
    """Put the examples of a layout before the first turn, for either side: there is nothing of the notes in them.

    Earlier answers in this layout get back the mark that their prompts ended with, so that they look like the examples.

    Args:
        messages: a conversation; its system prompts stay in front.
        layout: of the answer.
    """
    if layout == "plain":
        return list(messages)
    system = [message for message in messages if message.role == "system"]
    turns = [_with_mark(message) for message in messages if message.role != "system"]
    examples: list[Message] = []
    for question, fact, answer in _EXAMPLES:
        examples += [Message("user", question), Message("assistant", f"{NOTE} {fact} {ANSWER} {answer}")]
    return [*system, *examples, *turns]


def beginning(layout: AnswerLayout) -> str:
    """Return what the prompt has of the answer: its first mark, which no model has to write."""
    return "" if layout == "plain" else NOTE


def conclusion(text: str, layout: AnswerLayout) -> str:
    """Return the answer without the fact before it; all of it where the models wrote no mark."""
    return text if layout == "plain" else text.rpartition(ANSWER)[2].strip()


def _with_mark(message: Message) -> Message:
    is_laid_out = message.role == "assistant" and ANSWER in message.content
    return replace(message, content=f"{NOTE} {message.content.lstrip()}") if is_laid_out else message
