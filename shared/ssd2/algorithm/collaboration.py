"""The collaboration of §3.2, but for the network: the user model's two terms, and a pair in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssd2.algorithm.ensemble import mix
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.sampler import LogitsRequest, decode
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.logits.packed import CoreLogits, as_received


@dataclass(frozen=True)
class UserLogits:
    """What the user model adds to the mix; None where its weight is 0."""

    with_docs: Tensor | None = None
    without_docs: Tensor | None = None


class Predictor(Protocol):
    """One model's part in one decode."""

    def logits(self, request: LogitsRequest) -> Tensor:
        """Return the logits for one timestep, [B, L, V], float32; requests come in the order of the decode."""
        ...


class UserTerms:
    """The user model's passes with and without the documents, as one batch."""

    def __init__(self, predictor: Predictor, copies: int) -> None:
        """Take up a decode.

        Args:
            predictor: θ_user with all prompts that hold documents and, behind them, the same without.
            copies: 2; or 1 without contrast, where there is only the first pass.
        """
        self._predictor, self._copies = predictor, copies

    def logits(self, request: LogitsRequest) -> UserLogits:
        """The terms for one timestep, each [B, L, V]."""
        logits = self._predictor.logits(_repeated(request, self._copies))
        return UserLogits(*logits.chunk(self._copies))


def _repeated(request: LogitsRequest, copies: int) -> LogitsRequest:
    """The request with its rows repeated."""

    def repeat(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else torch.cat([tensor] * copies)

    return LogitsRequest(
        block=request.block,
        step=request.step,
        timestep=request.timestep,
        x_t=torch.cat([request.x_t] * copies),
        x0_hat=repeat(request.x0_hat),
        mixed_logits=repeat(request.mixed_logits),
        answer_ids=torch.cat([request.answer_ids] * copies),
        is_done=repeat(request.is_done),
    )


@dataclass(frozen=True)
class Timestep:
    """One timestep of a decode.

    Attributes:
        request: what the models were asked.
        core: the core's logits as received, or None at λ = 1.
        mixed: the ensemble of both models' logits, [B, L, V].
        seeds: one pair a row.
    """

    request: LogitsRequest
    core: CoreLogits | None
    mixed: Tensor
    seeds: Sequence[Seeds]


def decode_locally(
    core: Predictor | None,
    user: UserTerms | None,
    collaboration: CollaborationParams,
    params: DecodingParams,
    seeds: Sequence[Seeds],
    *,
    vocab_size: int,
    eos_token_id: int,
    device: torch.device | str = "cpu",
    logits_format: LogitsFormat = FLOAT16,
    on_timestep: Callable[[Timestep], None] = lambda _: None,
) -> list[list[int]]:
    """Decode with both models in one process: the reference that the wire is tested against.

    Args:
        core: θ_core with the prompts w_inst, or None at λ = 1.
        user: θ_user, or None at λ = 0.
        collaboration: λ and α.
        params: how to decode.
        seeds: one pair a row.
        vocab_size: V.
        eos_token_id: ends an answer.
        device: where both models run.
        logits_format: the core's logits are mixed as they would arrive in it.
        on_timestep: told of every timestep before its projection.

    Returns:
        The answers' token ids.
    """
    run = decode(params, seeds, vocab_size=vocab_size, eos_token_id=eos_token_id, device=device)
    received: CoreLogits | None = None
    try:
        request = next(run)
        while True:
            if core and params.asks_core_at(request.step):
                received = as_received(core.logits(request), logits_format)
            terms = user.logits(request) if user else UserLogits()
            mixed = mix_terms(received.values if received else None, terms, collaboration)
            on_timestep(Timestep(request, received, mixed, seeds))
            request = run.send(mixed)
    except StopIteration as finished:
        answers: list[list[int]] = finished.value
        return answers


def mix_terms(core_logits: Tensor | None, user: UserLogits, collaboration: CollaborationParams) -> Tensor:
    """Line 8 of Algorithm 2 with the parameters of a collaboration; [B, L, V]."""
    return mix(
        core_logits,
        user.with_docs,
        user.without_docs,
        lambda_user=collaboration.lambda_user,
        alpha=collaboration.alpha,
        normalise=collaboration.normalise,
    )
