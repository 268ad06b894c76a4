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
    exact = f" ({answer.exact_timesteps} provably as with full logits)" if answer.logits_format else ""
    ahead = f", {answer.guessed_timesteps} of its answers were there ahead" if answer.guessed_timesteps else ""
    return (
        f"{len(answer.tokens)} tokens, {changed} changed by your side (underlined); "
        f"{answer.timesteps} timesteps{exact} in {answer.seconds:.2f} s; "
        f"the core was asked {answer.round_trips} times{ahead}; "
        f"{answer.bytes_up:,} bytes up, {answer.bytes_down:,} down"
    )
