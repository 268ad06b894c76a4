"""Answers as terminal text."""

from __future__ import annotations

from rich.text import Text

from user_agent.agent import Answer
from user_agent.printable import printable


def marked(answer: Answer) -> Text:
    """The answer with the tokens that the user's side changed in bold and underlined."""
    text = Text()
    for token in answer.tokens:
        text.append(printable(token.text), style="bold underline" if token.is_changed else "")
    return text[len(text.plain) - len(text.plain.lstrip()) :]


def summary(answer: Answer) -> str:
    """One line on what the answer took."""
    changed = sum(token.is_changed for token in answer.tokens)
    return (
        f"{len(answer.tokens)} tokens, {changed} changed by your side (underlined); {answer.timesteps} timesteps and "
        f"{answer.round_trips} round trips to the core in {answer.seconds:.2f} s; {answer.bytes_up:,} bytes up, "
        f"{answer.bytes_down:,} down"
    )
