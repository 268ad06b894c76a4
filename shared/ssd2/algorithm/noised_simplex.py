"""x_t, as SSD-2 and SSD-LM read a block: lines 1, 10 and 11 of Algorithm 2, from token ids and a public seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.noise import gaussian_noise
from ssd2.algorithm.noise_schedule import alpha_bar
from ssd2.algorithm.simplex import tokens_to_simplex


def x_t_of(view: BlockView, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Make the noised simplex of a block; that of rows which are the same is made once.

    Args:
        view: of the block.
        vocab_size: V.
        device: where to compute it.

    Returns:
        x_t: [B, L, V], float32.
    """
    projected = view.projected or (None,) * len(view.noise_seeds)
    rows = list(zip(view.noise_seeds, projected, strict=True))
    unique = list(dict.fromkeys(rows))
    x0_hat = None
    if view.projected:
        tokens = [row for _, row in unique if row]
        x0_hat = tokens_to_simplex(tokens, view.block_size, vocab_size, view.simplex_value, device)
    x_t = noised_simplex(
        x0_hat,
        [seed for seed, _ in unique],
        block=view.block,
        timestep=view.timestep,
        length=view.block_size,
        simplex_value=view.simplex_value,
        vocab_size=vocab_size,
        device=device,
    )
    return x_t if len(unique) == len(rows) else x_t[[unique.index(row) for row in rows]]


def noised_simplex(
    x0_hat: Tensor | None,
    noise_seeds: Sequence[int],
    *,
    block: int,
    timestep: int,
    length: int,
    simplex_value: float,
    vocab_size: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """x_t from the previous projection and the public noise: lines 1, 10 and 11 of Algorithm 2.

    Args:
        x0_hat: the previous projection, [B, L, V], or None for pure noise at a block's start.
        noise_seeds: one a row.
        block: index of the block.
        timestep: t of the x_t to make.
        length: L.
        simplex_value: K.
        vocab_size: V.
        device: where to compute it.

    Returns:
        x_t: [B, L, V], float32.
    """
    z = simplex_value * gaussian_noise(  # lines 1 and 10
        noise_seeds, block=block, timestep=timestep, length=length, vocab_size=vocab_size, device=device
    )
    if x0_hat is None:
        return z
    alpha_bar_t = alpha_bar(torch.tensor(timestep, device=device))
    return alpha_bar_t.sqrt() * x0_hat + (1 - alpha_bar_t).sqrt() * z  # line 11


@dataclass(frozen=True)
class ProjectedRows:
    """Rows of a batch that may stand at different timesteps of different blocks, by their projected tokens.

    Attributes:
        noise_seeds: int64, [B].
        block: index of each row's block, int64, [B].
        timestep: t of the x_t to make, int64, [B].
        simplex_value: K, [B].
        begins: bool, [B], True at a block's first timestep, where there is no projection.
        positions: int64, [B, M], of the tokens at +K in the previous projections.
        token_ids: int64, [B, M]; those of a row with fewer than M are named again.
    """

    noise_seeds: Tensor
    block: Tensor
    timestep: Tensor
    simplex_value: Tensor
    begins: Tensor
    positions: Tensor
    token_ids: Tensor


def noised_rows(rows: ProjectedRows, length: int, vocab_size: int) -> Tensor:
    """The x_t of `noised_simplex` less what all entries of a position have in common.

    A softmax is the same for it, and nothing else is taken of an x_t; so only the entries at +K have
    to be touched, by +2K.

    Returns:
        [B, L, V], float32.
    """
    alpha_bar_t = alpha_bar(rows.timestep)
    x_t = gaussian_noise(
        rows.noise_seeds,
        block=rows.block,
        timestep=rows.timestep,
        length=length,
        vocab_size=vocab_size,
        device=rows.noise_seeds.device,
    )
    x_t *= (torch.where(rows.begins, 1.0, (1 - alpha_bar_t).sqrt()) * rows.simplex_value)[:, None, None]
    raised = torch.where(rows.begins, 0.0, 2 * rows.simplex_value * alpha_bar_t.sqrt())
    row = torch.arange(len(raised), device=raised.device)[:, None]
    x_t[row, rows.positions, rows.token_ids] += raised[:, None]  # once, even where a token is named twice
    return x_t
