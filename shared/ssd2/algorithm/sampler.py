"""Samplers: from ensembled logits to the tokens of an answer, without input or output of their own.

A sampler is begun with parameters and seeds. It says what the models have to be asked next, is given the ensembled
logits, from wherever they come (one model, two in a process, or one across the network), and says when a block is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.noise import uniform_noise
from ssd2.algorithm.nucleus import nucleus, sample
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.projection import ProjectedTokens


@dataclass(frozen=True)
class Projection:
    """Logits of a block projected onto tokens: line 9 of Algorithm 2.

    Attributes:
        rows: the tokens of each of the B rows.
        token_ids: what would be committed, int64, [B, L]; among the several tokens that a multi-hot projection leaves
            at a position, the one with the largest logit (line 13).
    """

    rows: tuple[ProjectedTokens, ...]
    token_ids: Tensor


@dataclass(frozen=True)
class Outcome:
    """Result of a sampler's step.

    Attributes:
        projection: of them.
        is_commit: whether it is the block's last, and its tokens have become part of the answer.
    """

    projection: Projection
    is_commit: bool


@dataclass(frozen=True)
class SeenBlock:
    """State of a block whose logits a core has computed: enough to guess the projection that will come.

    Attributes:
        own: the tokens that are likeliest by its own logits.
        before: the previous projection; None at a block's first timestep.
        ends_if_same: whether the agent's patience is over if the previous projection comes again.
        is_last: whether it is the block's last timestep.
    """

    own: ProjectedTokens
    before: ProjectedTokens | None
    ends_if_same: bool
    is_last: bool


@dataclass(frozen=True)
class Guess:
    """A projection that a core expects.

    Attributes:
        projected: its tokens.
        is_commit: whether they end the block.
    """

    projected: ProjectedTokens
    is_commit: bool


class Sampler(Protocol):
    """One decode of B rows; a row's answer depends on its own seeds alone.

    Attributes:
        due: what the models have to see next; None once all answers are there.
        params: how it decodes.
        seeds: one pair a row.
    """

    due: BlockView | None
    params: DecodingParams
    seeds: Sequence[Seeds]

    @property
    def answers(self) -> list[list[int]]:
        """Token ids of the committed blocks, each cut before its first stop id (footnote 11) and at `max_tokens`."""
        ...

    def project(self, logits: Tensor, view: BlockView) -> Projection:
        """Project logits of a timestep as the ensembled ones are, on the same draws; nothing is taken in.

        Args:
            logits: [B, L, V].
            view: of the timestep.
        """
        ...

    def step(self, logits: Tensor) -> Outcome:
        """Take in the ensembled logits that were due, [B, L, V], and go on to what is due next."""
        ...


class SamplerKind(Protocol):
    """A kind of sampler: that of a family of models."""

    def __call__(
        self,
        params: DecodingParams,
        seeds: Sequence[Seeds],
        *,
        stop_ids: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> Sampler:
        """Begin a decode.

        Args:
            params: how to decode.
            seeds: one pair a row.
            stop_ids: end an answer, and the first of them fills the rows that are done; none: only its length ends it.
            device: where the logits come from.
        """
        ...

    def guess(self, seen: SeenBlock) -> Guess:
        """Guess what the sampler of an agent will make of a timestep: what a core computes ahead on."""
        ...


def project(
    logits: Tensor, params: DecodingParams, sampling_seeds: Sequence[int], block: int, timestep: int
) -> Projection:
    """Project logits onto tokens with the device's own draws: line 9 of Algorithm 2.

    Args:
        logits: [B, L, V].
        params: projection, top_p and temperature.
        sampling_seeds: one a row; read by the sampling projection only.
        block: index of the block.
        timestep: t that the logits belong to.
    """
    if params.projection == "greedy":
        return _one_each(logits.argmax(-1))
    if params.temperature != 1:
        logits = logits / params.temperature
    if params.projection == "multi-hot":
        kept = nucleus(logits, params.top_p)
        token_ids = logits.float().masked_fill(~kept, float("-inf")).argmax(-1)
        return Projection(tuple(tokens_of(row) for row in kept), token_ids)
    uniform = uniform_noise(
        sampling_seeds, block=block, timestep=timestep, length=logits.shape[1], device=logits.device
    )
    return _one_each(sample(logits, uniform, params.top_p))


def tokens_of(members: Tensor) -> ProjectedTokens:
    """Name the tokens of a block, [L, V], that has one or more of them at each position."""
    counts = members.sum(-1).tolist()
    is_one_hot = all(count == 1 for count in counts)
    return ProjectedTokens(tuple(members.nonzero()[:, 1].tolist()), () if is_one_hot else tuple(counts))


def _one_each(token_ids: Tensor) -> Projection:
    return Projection(tuple(ProjectedTokens(tuple(row)) for row in token_ids.tolist()), token_ids)


def prune(token_ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """Drop the first stop id and all behind it (footnote 11)."""
    return list(takewhile(lambda token_id: token_id not in stop_ids, token_ids))
