"""The ensemble of §3.2: how the logits of the core and the user model become one."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(
    core: Tensor | None,
    user: Tensor | None,
    user_without_docs: Tensor | None,
    *,
    lambda_user: float,
    alpha: float,
    normalise: bool = False,
) -> Tensor:
    """Mix the logits of both models; all-reduce of line 8 of Algorithm 2.

        (1 - λ)·core + λ(1 + α)·user - λα·user_without_docs

    Source: the paper, §3.2, for diffusion (a block) as for autoregressive models (L = 1).

    A term whose weight is 0 is not read and may be None: at λ = 0 both of the user model's, at
    λ = 1 the core's, at α = 0 the contrastive one.

    Args:
        core: logits of the core, [B, L, V].
        user: logits of the user model that sees the documents, [B, L, V].
        user_without_docs: logits of the user model that sees the instruction only, [B, L, V].
        lambda_user: the user model's weight, in [0, 1].
        alpha: contrastive strength, at least 0.
        normalise: mix log-probabilities instead of raw logits. The paper mixes raw logits.

    Returns:
        [B, L, V], float32.
    """
    weighted = (
        (1.0 - lambda_user, core),
        (lambda_user * (1.0 + alpha), user),
        (-lambda_user * alpha, user_without_docs),
    )
    first, *others = (weight * _prepared(logits, normalise) for weight, logits in weighted if weight != 0.0)
    for term in others:
        first += term
    return first


def _prepared(logits: Tensor | None, normalise: bool) -> Tensor:
    if logits is None:
        raise ValueError("logits with a weight other than 0 must be given")
    return torch.log_softmax(logits.float(), dim=-1) if normalise else logits.float()
