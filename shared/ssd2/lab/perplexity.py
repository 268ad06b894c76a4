"""How likely texts are to a language model, and the perplexity of many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """Of one text.

    Attributes:
        nll: negative log likelihood of all its tokens, in nats.
        tokens: how many; each was predicted from the prompt and those before it.
        is_cut: whether the model's positions did not hold the whole text; what is cut off is not scored.
    """

    nll: float
    tokens: int
    is_cut: bool


def perplexity(likelihoods: Iterable[Likelihood]) -> float | None:
    """Perplexity of all tokens of all texts together, the micro average of SSD-LM's tables.

        exp(Σ nll / Σ tokens)

    Returns:
        None if there is no token.
    """
    every = list(likelihoods)
    tokens = sum(one.tokens for one in every)
    return math.exp(math.fsum(one.nll for one in every) / tokens) if tokens else None
