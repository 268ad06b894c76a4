"""Answers as terminal text."""

from __future__ import annotations

from rich.text import Text

from user_agent.answer import Answer
from user_agent.printable import printable


def token_style(*, is_changed: bool) -> str:
    """Tokens that the user's side changed are bold and underlined."""
    return "bold underline" if is_changed else ""


def marked(answer: Answer) -> Text:
    """The answer with its tokens marked."""
    text = Text()
    for token in answer.tokens:
        text.append(printable(token.text), style=token_style(is_changed=token.is_changed))
    return text[len(text.plain) - len(text.plain.lstrip()) :]


def summary(answer: Answer) -> str:
    """One line on what the answer took."""
    changed = sum(token.is_changed for token in answer.tokens)
    exact = f" ({answer.exact_timesteps} provably as with full logits)" if answer.logits_format else ""
    ahead = f", {answer.guessed_timesteps} of its answers were there ahead" if answer.guessed_timesteps else ""
    resumed = f"; the line broke {answer.resumed} times, and it went on" if answer.resumed else ""
    return (
        f"{len(answer.tokens)} tokens, {changed} changed by your side (underlined); "
        f"{answer.timesteps} timesteps{exact} in {answer.seconds:.2f} s; "
        f"the core was asked {answer.round_trips} times{ahead}; "
        f"{answer.bytes_up:,} bytes up, {answer.bytes_down:,} down{resumed}"
    )
