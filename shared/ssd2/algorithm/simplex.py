"""Between token ids and the ±K simplex, and from logits back onto it (line 9 of Algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ssd2.algorithm.params import SIMPLEX_VALUE
from ssd2.algorithm.vocabulary import check_range
from ssd2.errors import InvalidParameter
from ssd2.logits.ranking import ranked

NUCLEUS_CANDIDATES = 256
"""Entries that are put in order to find a nucleus; the whole vocabulary is only for a larger one."""


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


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The smallest set of most probable tokens whose mass reaches `top_p`.

    Args:
        logits: [..., V], unnormalised.
        top_p: nucleus mass in (0, 1]; the mode is always kept.

    Returns:
        Membership, bool, [..., V].

    Raises:
        InvalidParameter: if `top_p` is outside (0, 1].
    """
    if not 0 < top_p <= 1:
        raise InvalidParameter(f"top_p is {top_p}; it must be in (0, 1]", parameter="top_p", limit=1)
    probabilities = torch.softmax(logits.float(), dim=-1)
    vocab_size = logits.shape[-1]
    order, kept = _kept(probabilities, top_p, min(NUCLEUS_CANDIDATES, vocab_size))
    if vocab_size > NUCLEUS_CANDIDATES and bool(kept[..., -1].any()):  # it may go on behind them
        order, kept = _kept(probabilities, top_p, vocab_size)
    kept[..., 0] = True
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(-1, order, kept)


def _kept(probabilities: Tensor, top_p: float, count: int) -> tuple[Tensor, Tensor]:
    """The most probable entries in order, int64, and which of them have less mass than `top_p` before them."""
    order = ranked(probabilities, count, largest=True)
    descending = probabilities.gather(-1, order)
    return order, descending.cumsum(-1) - descending < top_p


def project_greedy(logits: Tensor, simplex_value: float = SIMPLEX_VALUE) -> Tensor:
    """Project logits onto the simplex at their mode.

        x0_hat[v] = +K if v = argmax(logits) else -K

    Source: SSD-LM (arXiv 2210.17432), logits-projection "greedy".

    Args:
        logits: [B, L, V], unnormalised.
        simplex_value: K, in logit units.

    Returns:
        x0_hat: [B, L, V], float32, every entry +K or -K.
    """
    return ids_to_simplex(logits.argmax(-1), logits.shape[-1], simplex_value)


def project_sampling(logits: Tensor, uniform: Tensor, *, top_p: float, simplex_value: float = SIMPLEX_VALUE) -> Tensor:
    """Project logits onto the simplex at one sample a position, drawn from the nucleus.

        x0_hat[v] = +K if v = the sample from top_p(softmax(logits)) else -K

    Source: SSD-LM (arXiv 2210.17432), logits-projection "sampling".

    Args:
        logits: [B, L, V], unnormalised.
        uniform: [B, L], the draws, in (0, 1].
        top_p: nucleus mass in (0, 1]; the mode is always kept.
        simplex_value: K, in logit units.

    Returns:
        x0_hat: [B, L, V], float32, every entry +K or -K.

    Raises:
        InvalidParameter: if `top_p` is outside (0, 1].
    """
    kept = nucleus(logits, top_p)
    probabilities = torch.softmax(logits.float().masked_fill(~kept, float("-inf")), dim=-1)
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.double().unsqueeze(-1) * cumulative[..., -1:]
    token_ids = torch.searchsorted(cumulative, threshold).squeeze(-1)
    return ids_to_simplex(token_ids.clamp(max=logits.shape[-1] - 1), logits.shape[-1], simplex_value)


def project_multi_hot(logits: Tensor, *, top_p: float, simplex_value: float = SIMPLEX_VALUE) -> Tensor:
    """Project logits onto the simplex, keeping each position's nucleus.

        x0_hat[v] = +K if v in top_p(softmax(logits)) else -K

    Source: SSD-LM (arXiv 2210.17432), logits-projection "multi-hot".

    Args:
        logits: [B, L, V], unnormalised.
        top_p: nucleus mass in (0, 1]; the mode is always kept.
        simplex_value: K, in logit units.

    Returns:
        x0_hat: [B, L, V], float32, every entry +K or -K.

    Raises:
        InvalidParameter: if `top_p` is outside (0, 1].
    """
    kept = nucleus(logits, top_p)
    return torch.where(kept, simplex_value, -simplex_value).to(torch.float32)
