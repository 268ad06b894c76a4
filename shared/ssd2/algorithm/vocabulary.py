"""Range of the token ids of a vocabulary."""

from __future__ import annotations

from ssd2.errors import TokenOutOfRange


def check_range(lowest: int, highest: int, vocab_size: int) -> None:
    """Check token ids by the lowest and the highest of them.

    Raises:
        TokenOutOfRange: if one is outside [0, V).
    """
    if not 0 <= lowest <= highest < vocab_size:
        raise TokenOutOfRange(
            f"token ids from {lowest} to {highest} do not fit a vocabulary of {vocab_size}; encode the text with "
            "this model's own tokenizer"
        )
