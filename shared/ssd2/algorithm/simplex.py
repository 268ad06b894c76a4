"""The ±K simplex of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.algorithm.params import SIMPLEX_VALUE
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.vocabulary import check_range


def ids_to_simplex(token_ids: Tensor, vocab_size: int, simplex_value: float = SIMPLEX_VALUE) -> Tensor:
    """Logits-initialization: the almost-one-hot representation of tokens (§2).

    Args:
        token_ids: int64, [..., L].
        vocab_size: V.
        simplex_value: K, in logit units.

    Returns:
        [..., L, V], float32: +K at the token, -K elsewhere.

    Raises:
        TokenOutOfRange: if an id is outside [0, V).
    """
    check_ids(token_ids, vocab_size)
    x_0 = torch.full((*token_ids.shape, vocab_size), -simplex_value, device=token_ids.device)
    return x_0.scatter_(-1, token_ids.unsqueeze(-1), simplex_value)


def check_ids(token_ids: Tensor, vocab_size: int) -> None:
    """Raise `TokenOutOfRange` if any id is outside [0, V)."""
    if token_ids.numel():
        check_range(int(token_ids.min()), int(token_ids.max()), vocab_size)


def tokens_to_simplex(
    rows: Sequence[ProjectedTokens],
    length: int,
    vocab_size: int,
    simplex_value: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make the simplexes of projected tokens.

    Args:
        rows: B of them.
        length: L.
        vocab_size: V.
        simplex_value: K, in logit units.
        device: where to make them.

    Returns:
        [B, L, V], float32: +K at the tokens, -K elsewhere.
    """
    x0_hat = torch.full((len(rows), length, vocab_size), -simplex_value, device=device)
    for row, tokens in zip(x0_hat, rows, strict=True):
        row[list(tokens.positions), list(tokens.token_ids)] = simplex_value
    return x0_hat
