"""Draws of Algorithm 1. All come from (seed, step, row), so that any rank can draw only its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.training.recipe import TrainingParams

SELF_CONDITIONING_PROBABILITY = 0.5
"""p of line 5 of Algorithm 1."""


# See docs/decisions/032-training.md.
@dataclass(frozen=True)
class Draws:
    """The draws of a global batch, but for its noise.

    Attributes:
        key: names the batch; all of its draws come from it.
        t: timesteps, line 2: [B], or [B, n] where each block has its own.
        self_condition: r of line 5, one for all rows, so that a step is one pass or two.
        has_partner: True if a partner's tokens are fed back in place of line 9, in all rows.
    """

    key: str
    t: Tensor
    self_condition: bool
    has_partner: bool


def draw(rows: int, params: TrainingParams, key: str, *, blocks: int = 1) -> Draws:
    """Lines 2 and 5, and whether there is a partner.

    Args:
        rows: B of the global batch.
        params: with the range of the timesteps.
        key: of the batch.
        blocks: n of its longest row.
    """
    generator = _generator(f"{params.seed}/{key}")
    drawn = rows if params.timesteps_per == "sequence" else rows * blocks
    t = narrow(sample_timesteps(drawn, generator), params.timesteps_above, params.timesteps_up_to)
    r = torch.rand((), generator=generator).item() < SELF_CONDITIONING_PROBABILITY
    has_partner = torch.rand((), generator=generator).item() < params.partner_feedback
    t = t if params.timesteps_per == "sequence" else t.view(rows, blocks)
    return Draws(f"{params.seed}/{key}", t, r, has_partner)


def draw_noise(key: str, rows: Iterable[int], mask: Tensor, vocab_size: int, device: torch.device | str) -> Tensor:
    """Line 3, row by row, on the device that trains.

    Args:
        key: of the global batch.
        rows: which of its rows these are.
        mask: bool, [B, nL]; where it is False, which is behind a row's last block, the noise is 0.
        vocab_size: V.
        device: where to draw; the numbers differ between kinds of devices.

    Returns:
        Standard normal, [B, nL, V].
    """
    noise = torch.zeros(*mask.shape, vocab_size, device=device)
    for index, (row, tokens) in enumerate(zip(rows, mask.sum(-1).tolist(), strict=True)):
        noise[index, :tokens].normal_(generator=_generator(f"{key}/{row}", device))
    return noise


@dataclass(frozen=True)
class Partner:
    """Changes of a partner to the tokens that a model is fed back, and to those that it reads through the noise.

    Attributes:
        is_right: bool, [B, nL], positions that it has right.
        strays: int64, [B, nL], tokens that neither side would say, at the other positions; -1 where there is none.
        is_noised: bool, [B], rows whose noised simplex is of these tokens as well, in place of the true ones.
        earlier: timesteps at which the model's own tokens are predicted, as t of the batch: above it in rows that
            are noised, where more of those tokens are wrong; t itself in the others.
    """

    is_right: Tensor
    strays: Tensor
    is_noised: Tensor
    earlier: Tensor

    def to(self, device: torch.device | str) -> Partner:
        """The same on a device."""
        return Partner(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw_partner(
    key: str, rows: Iterable[int], mask: Tensor, t: Tensor, params: TrainingParams, vocab_size: int
) -> Partner:
    """Draw a partner: each position right with probability ρ, and a stray token with probability σ.

    One ρ ~ Uniform(0, partner_right) and one σ ~ Uniform(0, partner_stray) a row; `earlier` ~ Uniform(t, T).

    Args:
        key: of the global batch.
        rows: which of its rows these are.
        mask: bool, [B, nL].
        t: timesteps of these rows, [B] or [B, n].
        params: with the largest ρ and σ, and the share of rows that are noised.
        vocab_size: V.

    Returns:
        The partner, on the CPU.
    """
    length = mask.shape[1]
    is_right, strays = torch.zeros(mask.shape, dtype=torch.bool), torch.full(mask.shape, -1)
    is_noised, earlier = torch.zeros(len(mask), dtype=torch.bool), t.cpu().clone()
    for index, row in enumerate(rows):
        generator = _generator(f"{key}/{row}/partner")
        rho, sigma = torch.rand(2, generator=generator) * torch.tensor([params.partner_right, params.partner_stray])
        is_right[index] = torch.rand(length, generator=generator) < rho
        is_stray = torch.rand(length, generator=generator) < sigma
        strays[index] = torch.randint(vocab_size, (length,), generator=generator).where(is_stray, torch.tensor(-1))
        is_noised[index] = torch.rand((), generator=generator) < params.partner_noised
        if is_noised[index]:
            above = torch.rand(earlier[index].shape, generator=generator) * (TRAINED_TIMESTEPS - earlier[index])
            earlier[index] += above.long()
    return Partner(is_right, strays, is_noised, earlier)


def sample_timesteps(rows: int, generator: torch.Generator) -> Tensor:
    """Line 2: t ~ Uniform({1, …, T}), one a sequence.

    The draws of a batch are stratified: each is uniform on its own, and together they cover
    the range evenly, which lowers the variance of the loss.

    Returns:
        int64, [rows], in random order.
    """
    strata = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    t = (strata * TRAINED_TIMESTEPS).long() + 1
    return t[torch.randperm(rows, generator=generator)].clamp(max=TRAINED_TIMESTEPS)


def narrow(t: Tensor, above: float, up_to: float) -> Tensor:
    """Move t from (0, T] into (above·T, up_to·T], evenly."""
    low, high = round(above * TRAINED_TIMESTEPS), round(up_to * TRAINED_TIMESTEPS)
    return low + 1 + (t - 1) * (high - low) // TRAINED_TIMESTEPS


def _generator(key: str, device: torch.device | str = "cpu") -> torch.Generator:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    return torch.Generator(device).manual_seed(seed)
