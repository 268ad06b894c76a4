"""Likelihood of a text under a language model, and perplexity of many texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of one text.

    Attributes:
        nll: negative log likelihood of all its tokens, in nats.
        tokens: number of tokens; each was predicted from the prompt and those before it.
        is_cut: True if the text exceeds the model's positions; the part beyond them is not scored.
    """

    nll: float
    tokens: int
    is_cut: bool


def perplexity(likelihoods: Iterable[Likelihood]) -> float | None:
    """Return the perplexity over all tokens of all texts, the micro average of SSD-LM's tables.

        exp(Σ nll / Σ tokens)

    Returns:
        None if there is no token.
    """
    every = list(likelihoods)
    tokens = sum(one.tokens for one in every)
    return math.exp(math.fsum(one.nll for one in every) / tokens) if tokens else None
