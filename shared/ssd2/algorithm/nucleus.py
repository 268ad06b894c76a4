"""The nucleus of logits, and draws from it: what the sampling and multi-hot projections keep of a position."""

from __future__ import annotations

import torch
from torch import Tensor

from ssd2.errors import InvalidParameter
from ssd2.logits.ranking import ranked

CANDIDATES, GROWTH = 64, 8
"""Entries that are ranked at first to find a nucleus, and how many times as many at least where it goes on behind."""


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Find the smallest set of most probable tokens whose mass reaches `top_p`.

    Args:
        logits: [..., V], unnormalised.
        top_p: nucleus mass in (0, 1]; the mode is always kept.

    Returns:
        Membership, bool, [..., V].

    Raises:
        InvalidParameter: if `top_p` is outside (0, 1].
    """
    order, kept = _ranked_nucleus(logits, top_p)
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, kept)


def sample(logits: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Draw one token a position from its nucleus, along the order of the vocabulary.

    Of the size of V only probabilities are made, and what they are ranked by.

    Source: SSD-LM (arXiv 2210.17432), eq. 3.12, logits-projection "sampling".

    Args:
        logits: [..., V], unnormalised.
        uniform: [...], the draws, in (0, 1].
        top_p: nucleus mass in (0, 1]; the mode is always kept.

    Returns:
        int64, [...].

    Raises:
        InvalidParameter: if `top_p` is outside (0, 1].
    """
    order, kept = _ranked_nucleus(logits, top_p)
    count = kept.sum(-1, keepdim=True)
    order, kept = (one[..., : int(count.max())] for one in (order, kept))
    ids = order.masked_fill(~kept, logits.shape[-1]).to(torch.int32)  # [..., M]; V behind the last that is kept
    ids = ids.sort(dim=-1, stable=True).values.to(torch.int64)  # by radix: six times as fast
    is_kept = torch.arange(ids.shape[-1], device=ids.device) < count
    entries = logits.gather(-1, ids.clamp(max=logits.shape[-1] - 1)).float()
    probabilities = torch.softmax(entries.masked_fill(~is_kept, float("-inf")), dim=-1)
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.double().unsqueeze(-1) * cumulative[..., -1:]
    drawn = torch.searchsorted(cumulative, threshold).minimum(count - 1)
    return ids.gather(-1, drawn).squeeze(-1)


def _ranked_nucleus(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Rank the most probable entries, int64, [..., M], and tell which of them are the nucleus; none behind them is."""
    if not 0 < top_p <= 1:
        raise InvalidParameter(f"top_p is {top_p}; it must be in (0, 1]", parameter="top_p", limit=1)
    probabilities = torch.softmax(logits.float(), dim=-1)
    vocab_size = logits.shape[-1]
    count = min(CANDIDATES, vocab_size)
    order, before = _ranked(probabilities, count)
    while count < vocab_size and float(mass := before[..., -1].min()) < top_p:
        # No entry behind is larger, so that fewer than these cannot come to top_p.
        needed = int(count * top_p / max(float(mass), top_p / vocab_size))
        count = max(GROWTH * count, needed)
        count = vocab_size if count > vocab_size // GROWTH else count
        order, before = _ranked(probabilities, count)
    kept = before < top_p
    kept[..., 0] = True
    return order, kept


def _ranked(probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rank the most probable entries: ids, int64, and the mass before each, both [..., M]."""
    order = ranked(probabilities, count, largest=True)
    descending = probabilities.gather(-1, order)
    return order, descending.cumsum(-1) - descending
