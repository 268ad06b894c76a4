"""Answers as terminal text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from user_agent.answering.answer import Answer, AnswerToken, Conflict
from user_agent.answering.run import Question
from user_agent.answering.service import Answered
from user_agent.store.printable import printable

MOST_NAMED = 5
"""Passages that did not fit, named one by one."""


def token_style(*, is_changed: bool) -> str:
    """Tokens that the user's side changed are bold and underlined."""
    return "bold underline" if is_changed else ""


def marked(tokens: Sequence[AnswerToken]) -> Text:
    """Return the text of tokens, with those marked that the user's side changed."""
    text = Text()
    for token in tokens:
        text.append(printable(token.text), style=token_style(is_changed=token.is_changed))
    return text[len(text.plain) - len(text.plain.lstrip()) :]


def summary(answer: Answer) -> str:
    """One line on what the answer took."""
    changed = sum(token.is_changed for token in answer.tokens)
    exact = f" ({answer.exact_timesteps} provably the same as with full logits)" if answer.logits_format else ""
    ahead = f", {answer.guessed_timesteps} of its replies had come ahead" if answer.guessed_timesteps else ""
    resumed = f"; the connection broke {answer.resumed} times, and the answer was resumed" if answer.resumed else ""
    return (
        f"{len(answer.tokens)} tokens, {changed} changed by your side (underlined); "
        f"{answer.timesteps} timesteps{exact} in {answer.seconds:.2f} s; "
        f"the core was asked {answer.round_trips} times{ahead}; "
        f"{answer.bytes_up:,} bytes up, {answer.bytes_down:,} down{resumed}"
    )


def taken(answered: Answered, citation: int) -> str:
    """Return what of an answer comes from a passage, its pieces in their order; "" for nothing, or if it is unknown."""
    runs = groupby(answered.tokens, lambda token: token.citation == citation)
    pieces = ("".join(token.text for token in run).strip() for is_from_it, run in runs if is_from_it)
    return ", ".join(f"“{piece}”" for piece in pieces if piece)


def disagreements(answered: Answered) -> list[str]:
    """Say where passages disagree, a sentence each."""
    return [_disagreement(conflict, answered.question) for conflict in answered.conflicts or ()]


def _disagreement(conflict: Conflict, question: Question) -> str:
    sides = [f"{question.passages[said.citation].place} says “{said.would_say}”" for said in conflict.passages]
    how_many = "Two" if len(sides) == 2 else str(len(sides))
    return printable(f"{how_many} of your notes disagree: {', '.join(sides)}.")


def cut_off(answered: Answered) -> list[str]:
    """Say that an answer is not whole, where `remarks` does not say why it is so short."""
    question = answered.question
    if answered.finish_reason != "length" or question.clamped_from:
        return []
    return [f"Cut off at {question.params.max_tokens} tokens, the longest answer; --max-tokens N allows a longer one."]


NOTHING_FOUND = "Nothing about this was found in your documents; the answer does not use them."


def remarks(question: Question) -> list[str]:
    """Say what did not fit, a sentence each."""
    said = []
    if question.clamped_from:
        said.append(
            f"The answer has at most {question.params.max_tokens} tokens, not {question.clamped_from}: this question "
            "leaves the models no more room."
        )
    if question.nothing_found:
        said.append(NOTHING_FOUND)
    if turns := question.left_out_turns:
        count = f"{turns} earlier turn{'s' if turns > 1 else ''}"
        said.append(f"{count} left out: the oldest do not fit beside this question.")
    if question.private_context_fit == "in part":
        said.append(
            "The private context is given in part: the sentences that fit, those that match the question first."
        )
    if question.private_context_fit == "left out":
        why = "does not fit beside this question" if question.collaboration.uses_user else "is not read at λ 0"
        said.append(f"The private context is left out: it {why}.")
    if left_out := question.left_out:
        count = f"{len(left_out)} more passage{'s were' if len(left_out) > 1 else ' was'}"
        places = [printable(passage.place) for passage in left_out[:MOST_NAMED]]
        rest = [f"and {len(left_out) - MOST_NAMED} others"] if len(left_out) > MOST_NAMED else []
        said.append(f"{count} found but did not fit: {', '.join([*places, *rest])}")
    return said
