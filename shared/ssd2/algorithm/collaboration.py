"""The collaboration of §3.2, but for the network: the user model's two terms, and a pair in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.ensemble import Weights, difference, divergent_lambda, weighted_average, weighted_sum
from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.algorithm.sampler import Sampler
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.logits.packed import CoreLogits, as_received


@dataclass(frozen=True)
class UserLogits:
    """Logits of the user model, each [B, L, V]; None where nothing depends on them."""

    with_docs: Tensor | None = None
    without_docs: Tensor | None = None


class Predictor(Protocol):
    """One model's part in one decode."""

    def logits(self, view: BlockView) -> Tensor:
        """Return the logits of one timestep, [B, L, V], float32: a function of the prompts and the view alone."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A predictor that keeps something for later decodes."""

    def close(self) -> None:
        """End the decode; another thread may still compute for it."""
        ...


class UserTerms:
    """The user model's passes with and without the documents, as one batch."""

    def __init__(self, predictor: Predictor, copies: int) -> None:
        """Take up a decode.

        Args:
            predictor: θ_user with all prompts that hold documents and, behind them, the same without.
            copies: 2; or 1 where nothing depends on the pass without the documents, which is left out.
        """
        self._predictor, self._copies = predictor, copies

    def logits(self, view: BlockView) -> UserLogits:
        """Return the terms for one timestep, each [B, L, V]."""
        logits = self._predictor.logits(view.repeated(self._copies))
        return UserLogits(*logits.chunk(self._copies))

    def close(self) -> None:
        """End the decode; another thread may still compute for it."""
        if isinstance(self._predictor, Closing):
            self._predictor.close()


@dataclass(frozen=True)
class Mix:
    """The ensemble at one timestep.

    Attributes:
        logits: of both models, [B, L, V], float32.
        weights: that they were mixed with.
    """

    logits: Tensor
    weights: Weights


@dataclass(frozen=True)
class Timestep:
    """One timestep of a decode.

    Attributes:
        view: what the models were asked.
        core: the core's logits as received, or None at λ = 1.
        mixed: the ensemble of both models' logits, [B, L, V].
        seeds: one pair a row.
        weights: that the models' logits were mixed with.
    """

    view: BlockView
    core: CoreLogits | None
    mixed: Tensor
    seeds: Sequence[Seeds]
    weights: Weights


@torch.inference_mode()
def decode_locally(
    core: Predictor | None,
    user: UserTerms | None,
    collaboration: CollaborationParams,
    sampler: Sampler,
    *,
    logits_format: LogitsFormat = FLOAT16,
    on_timestep: Callable[[Timestep], None] = lambda _: None,
) -> list[list[int]]:
    """Decode with both models in one process: the reference that the wire is tested against.

    Args:
        core: θ_core with the prompts w_inst, or None at λ = 1.
        user: θ_user, or None at λ = 0.
        collaboration: λ and α.
        sampler: just begun.
        logits_format: the core's logits are mixed as they would arrive in it.
        on_timestep: told of every timestep before its projection.

    Returns:
        The answers' token ids.
    """
    every, received = sampler.params.core_every, None
    while (view := sampler.due) is not None:
        if core and sampler.params.asks_core_at(view.step):
            received = as_received(core.logits(view.at_every(every)), logits_format)
        terms = user.logits(view) if user else UserLogits()
        mix = mix_terms(received.values if received else None, terms, collaboration)
        on_timestep(Timestep(view, received, mix.logits, sampler.seeds, mix.weights))
        sampler.step(mix.logits)
    return sampler.answers


def mix_terms(core_logits: Tensor | None, user: UserLogits, collaboration: CollaborationParams) -> Mix:
    """Line 8 of Algorithm 2 with the parameters of a collaboration, over the smaller vocabulary.

    An id that one side does not have is -inf there, and so in the mix.
    """
    terms = (core_logits, user.with_docs, user.without_docs)
    vocab_size = min((term.shape[-1] for term in terms if term is not None), default=0)
    core_logits, with_docs, without_docs = (None if term is None else term[..., :vocab_size] for term in terms)
    weights = _weights(with_docs, without_docs, collaboration)
    return Mix(weighted_sum(core_logits, with_docs, without_docs, weights, normalise=collaboration.normalise), weights)


# See docs/decisions/054-lambda-without-a-search.md.
def _weights(user: Tensor | None, user_without_docs: Tensor | None, collaboration: CollaborationParams) -> Weights:
    """Decide λ of each position, from the passes of the user model only: nothing about it has to cross."""
    if collaboration.lambda_user == "difference":
        return difference(collaboration.alpha)
    if collaboration.lambda_user != "auto":
        return weighted_average(collaboration.lambda_user, collaboration.alpha)
    if user is None or user_without_docs is None:
        raise ValueError("λ auto needs the logits of both passes of the user model")
    return weighted_average(divergent_lambda(user, user_without_docs), collaboration.alpha)
