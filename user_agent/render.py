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
    exact = f", {answer.exact_timesteps} of them provably as with full logits," if answer.logits_format else ""
    return (
        f"{len(answer.tokens)} tokens, {changed} changed by your side (underlined); {answer.timesteps} "
        f"timesteps{exact} in {answer.seconds:.2f} s; {answer.bytes_up:,} bytes up, {answer.bytes_down:,} down"
    )
