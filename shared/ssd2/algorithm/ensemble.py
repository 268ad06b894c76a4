"""The ensemble of §3.2: how the logits of the core and the user model become one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

LAMBDA_MAX = 0.9
"""λ at a position where the documents change everything: even there the core keeps a say."""

Weight: TypeAlias = float | Tensor
"""Of all positions, or one for each, [B, L, 1], float32."""


@dataclass(frozen=True)
class Weights:
    """Weights of the three terms of the mix.

    Attributes:
        core: of the core's logits.
        user: of those of the user model that sees the documents.
        without_docs: of those of the user model that sees the instruction only.
        lambda_user: λ that they follow from; None where there is none.
    """

    core: Weight
    user: Weight
    without_docs: Weight
    lambda_user: Weight | None = None


def weighted_average(lambda_user: Weight, alpha: float) -> Weights:
    """Weight the terms as the paper does, with one λ or one for each position.

        (1 - λ)·core + λ(1 + α)·user - λα·user_without_docs

    Source: the paper, §3.2, for diffusion (a block) as for autoregressive models (L = 1).

    Args:
        lambda_user: λ, the user model's weight, in [0, 1].
        alpha: contrastive strength, at least 0.
    """
    without_docs = -lambda_user * alpha if alpha else 0.0  # a tensor of zeros would be read
    return Weights(1.0 - lambda_user, lambda_user * (1.0 + alpha), without_docs, lambda_user)


def difference(beta: float) -> Weights:
    """Weight the terms so that the core is corrected by what the documents change in the user model.

        core + β·(user - user_without_docs)

    Source: proxy-tuning (arXiv 2401.08565), eq. 1, whose tuned and untuned small models are here one model with and
    without the documents. It is the limit of the paper's mix for λ to 0 with λα = β.

    Args:
        beta: β, its strength, at least 0.
    """
    return Weights(1.0, beta, -beta)


def divergent_lambda(user: Tensor, user_without_docs: Tensor) -> Tensor:
    """Find λ of each position from what the documents change in the user model there.

        λ = λ_max·sqrt(JSD(softmax(user), softmax(user_without_docs)))

    with the Jensen-Shannon divergence in bits, which lies in [0, 1]; its root is a distance. Where the documents say
    nothing λ is 0, and the core decides; also where the user model is surely wrong, if it is so without them too.

    Source: AdaCAD (arXiv 2409.07394), which sets the contrastive strength of one model by this divergence. That it sets
    λ, and the root, are this project's: the paper names the search for λ among its limitations.

    Args:
        user: logits of the user model that sees the documents, [B, L, V].
        user_without_docs: of the one that sees the instruction only, [B, L, V].

    Returns:
        [B, L, 1], float32, in [0, λ_max].
    """
    p, q = (torch.softmax(logits.float(), dim=-1) for logits in (user, user_without_docs))
    mean = (p + q) / 2
    # With p = mean·(1 + d) and q = mean·(1 - d) nothing is subtracted that is nearly the same: equal passes have λ = 0.
    d = (p - q) / (p + q).clamp_min_(torch.finfo(torch.float32).tiny)
    bits = (mean * (_x_log_x(d) + _x_log_x(-d))).sum(-1, keepdim=True) / (2 * math.log(2))
    lambdas: Tensor = LAMBDA_MAX * bits.clamp_(0, 1).sqrt_()
    return lambdas


def _x_log_x(d: Tensor) -> Tensor:
    """Return x·log(x) of x = 1 + d, 0 at x = 0. torch.special.xlog1py is exact there too, and takes twice as long."""
    return (1 + d) * torch.log1p(d).clamp_min_(torch.finfo(torch.float32).min)


class BlockChanges:
    """λ of a block's positions so far, for `divergent_lambda` from timestep to timestep.

        λ_i = max(d_i, mean(d_1, ..., d_i))

    with d_i the λ of `divergent_lambda` at the block's i-th timestep. Once a fact of the documents was drawn, both
    passes of the user model read it in the block, d falls to 0, and the core would decide about a fact that it has
    never seen.

    Source: this project's; docs/decisions/054-lambda-without-a-search.md has what it is worth.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def remembered(self, lambda_user: Tensor, step: int) -> Tensor:
        """Return λ at the next timestep of a block, and keep what it adds; the first one (0) forgets the block before.

        Args:
            lambda_user: d of the timestep, [B, L, 1].
            step: of the timestep in its block.
        """
        self._sum = lambda_user if self._sum is None or step == 0 else self._sum + lambda_user
        return torch.maximum(lambda_user, self._sum / (step + 1))


def weighted_sum(
    core: Tensor | None,
    user: Tensor | None,
    user_without_docs: Tensor | None,
    weights: Weights,
    *,
    normalise: bool = False,
) -> Tensor:
    """Mix the logits of both models; all-reduce of line 8 of Algorithm 2.

    A term whose weight is the number 0 is not read and may be None: at λ = 0 both of the user model's, at λ = 1 the
    core's, at α = 0 the contrastive one.

    To normalise takes one number off all entries of a position, whether λ is one for all positions or one for each: it
    changes no probability of the mix, and so no projection.

    Args:
        core: logits of the core, [B, L, V].
        user: logits of the user model that sees the documents, [B, L, V].
        user_without_docs: logits of the user model that sees the instruction only, [B, L, V].
        weights: of the three.
        normalise: mix log-probabilities instead of raw logits. The paper mixes raw logits.

    Returns:
        [B, L, V], float32.
    """
    weighted = ((weights.core, core), (weights.user, user), (weights.without_docs, user_without_docs))
    counting = [(weight, logits) for weight, logits in weighted if isinstance(weight, Tensor) or weight != 0.0]
    first, *others = (weight * _prepared(logits, normalise) for weight, logits in counting)
    for term in others:
        first += term
    return first


def _prepared(logits: Tensor | None, normalise: bool) -> Tensor:
    if logits is None:
        raise ValueError("logits with a weight other than 0 must be given")
    return torch.log_softmax(logits.float(), dim=-1) if normalise else logits.float()
