"""The collaboration of §3.2, but for the network: the user model's two terms, and a pair in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.ensemble import BlockChanges, Weights, difference, divergent_lambda, weighted_average, weighted_sum
from ssd2.algorithm.params import CollaborationParams, Seeds
from ssd2.algorithm.sampler import Sampler
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.logits.packed import CoreLogits, as_received


@dataclass(frozen=True)
class UserLogits:
    """Logits of the user model's passes.

    Attributes:
        with_docs: with the documents, [B, L, V]; None where nothing depends on it.
        without_docs: with the instruction only, [B, L, V]; None where nothing depends on it.
        beside: of passes that are no part of the mix, each [B, L, V]; see `ssd2.algorithm.attribution`.
    """

    with_docs: Tensor | None = None
    without_docs: Tensor | None = None
    beside: tuple[Tensor, ...] = ()


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
    """The user model's passes with and without the documents, and those beside them, as one batch."""

    def __init__(self, predictor: Predictor, copies: int) -> None:
        """Take up a decode.

        Args:
            predictor: θ_user with all prompts that hold documents and, behind them, the same without, and then those of
                the passes beside the mix.
            copies: passes: 2 and those beside the mix; or 1 where nothing depends on more than the first pass.
        """
        self._predictor, self._copies = predictor, copies

    def logits(self, view: BlockView) -> UserLogits:
        """Return the terms for one timestep, each [B, L, V]."""
        return self._parted(self._predictor.logits(view.repeated(self._copies)))

    def continued(self, view: BlockView, blocks: int) -> tuple[Tensor, ...]:
        """Let each pass beside the mix go on by itself, with its likeliest tokens. Nothing of it is mixed or sent.

        Args:
            view: of a block's first timestep; its tokens are taken as they are predicted there.
            blocks: how many to write.

        Returns:
            Token ids by pass, each int64, [B, blocks·L].
        """
        view, first = view.repeated(self._copies), view.answer_ids.shape[1]
        for _ in range(blocks):
            token_ids = self._predictor.logits(view).argmax(-1)
            answer_ids = torch.cat([view.answer_ids, token_ids.to(view.answer_ids.device)], -1)
            view = replace(view, block=view.block + 1, answer_ids=answer_ids)
        return self._parted(view.answer_ids[:, first:]).beside

    def _parted(self, rows: Tensor) -> UserLogits:
        with_docs, *others = rows.chunk(self._copies)
        return UserLogits(with_docs, others[0] if others else None, tuple(others[1:]))

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
    every, received, mixer = sampler.params.core_every, None, Mixer(collaboration)
    while (view := sampler.due) is not None:
        if core and sampler.params.asks_core_at(view.step):
            received = as_received(core.logits(view.at_every(every)), logits_format)
        terms = user.logits(view) if user else UserLogits()
        mix = mixer.mix(received.values if received else None, terms, view.step)
        on_timestep(Timestep(view, received, mix.logits, sampler.seeds, mix.weights))
        sampler.step(mix.logits)
    return sampler.answers


class Mixer:
    """Line 8 of Algorithm 2 with the parameters of a collaboration, timestep after timestep of one decode."""

    def __init__(self, collaboration: CollaborationParams) -> None:
        """Begin a decode, of one row or a batch."""
        self._collaboration = collaboration
        self._changes = BlockChanges()

    def mix(self, core_logits: Tensor | None, user: UserLogits, step: int) -> Mix:
        """Mix one timestep over the smaller vocabulary; an id that one side does not have is -inf there, and so here.

        Args:
            core_logits: of the core, [B, L, V]; None at λ = 1.
            user: of the user model.
            step: of the timestep in its block, from 0.
        """
        terms = (core_logits, user.with_docs, user.without_docs)
        vocab_size = min((term.shape[-1] for term in terms if term is not None), default=0)
        core_logits, with_docs, without_docs = (None if term is None else term[..., :vocab_size] for term in terms)
        weights = self._weights(with_docs, without_docs, step)
        normalise = self._collaboration.normalise
        return Mix(weighted_sum(core_logits, with_docs, without_docs, weights, normalise=normalise), weights)

    # See docs/decisions/054-lambda-without-a-search.md.
    def _weights(self, user: Tensor | None, user_without_docs: Tensor | None, step: int) -> Weights:
        """Decide λ of each position, from the passes of the user model only: nothing about it has to cross."""
        lambda_user, alpha = self._collaboration.lambda_user, self._collaboration.alpha
        if lambda_user == "difference":
            return difference(alpha)
        if lambda_user != "auto":
            return weighted_average(lambda_user, alpha)
        if user is None or user_without_docs is None:
            raise ValueError("λ auto needs the logits of both passes of the user model")
        return weighted_average(self._changes.remembered(divergent_lambda(user, user_without_docs), step), alpha)
