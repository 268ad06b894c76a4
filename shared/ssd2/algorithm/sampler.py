"""Algorithm 2, without input or output of its own: it asks for logits and is given them.

`decode` is a generator. It yields a `LogitsRequest` for every timestep and expects the ensembled
logits to be sent back, from wherever they come: one model, two in a process, or one across the
network. What the core needs to follow the same trajectory is `noised_simplex`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd2.algorithm.block_end import BlockEnd
from ssd2.algorithm.noise import gaussian_noise, uniform_noise
from ssd2.algorithm.noise_schedule import alpha_bar
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.simplex import project_greedy, project_multi_hot, project_sampling


@dataclass(frozen=True)
class LogitsRequest:
    """One timestep of one block, as a model has to see it.

    Attributes:
        block: index of the block in the answer.
        step: index of the timestep in the block, from 0.
        timestep: t.
        x_t: noised simplex, [B, L, V].
        x0_hat: the previous projection, [B, L, V]; None at a block's first timestep.
        mixed_logits: the previous ensembled logits, [B, L, V]; None at a block's first timestep.
        answer_ids: the blocks committed so far, int64, [B, block·L].
        is_done: bool, [B], rows that look for nothing more in this block: what they are given is not
            read. None: no row is.
    """

    block: int
    step: int
    timestep: int
    x_t: Tensor
    x0_hat: Tensor | None
    mixed_logits: Tensor | None
    answer_ids: Tensor
    is_done: Tensor | None = None

    @property
    def rows_at_work(self) -> int:
        """Rows that still look for their tokens."""
        return len(self.x_t) if self.is_done is None else int((~self.is_done).sum())


def decode(
    params: DecodingParams,
    seeds: Sequence[Seeds],
    *,
    vocab_size: int,
    eos_token_id: int,
    device: torch.device | str = "cpu",
) -> Generator[LogitsRequest, Tensor, list[list[int]]]:
    """Decode answers, block by block; Algorithm 2 of the paper, whose line numbers stand at the side.

    Args:
        params: how to decode.
        seeds: one pair a row; a row's answer depends on its own alone.
        vocab_size: V.
        eos_token_id: ends an answer.
        device: where the simplex lives.

    Yields:
        What a model has to see next; send back the ensembled logits, [B, L, V] (lines 3 to 8). A block goes on until
        the last of its rows is done.

    Returns:
        The answers' token ids, each cut before its first EOS (footnote 11) and at `max_tokens`.
    """
    noise_seeds, sampling_seeds = [s.noise for s in seeds], [s.sampling for s in seeds]
    answer_ids = torch.empty(len(seeds), 0, dtype=torch.int64, device=device)
    is_answered = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    for block in range(params.max_blocks):
        x0_hat: Tensor | None = None
        logits: Tensor | None = None
        end = BlockEnd(params, is_answered)
        for step, t in enumerate(params.timesteps):  # line 2
            x_t = noised_simplex(x0_hat, noise_seeds, block, t, params, vocab_size, device)  # lines 1, 10 and 11
            logits = yield LogitsRequest(block, step, t, x_t, x0_hat, logits, answer_ids, end.is_done)  # lines 3 to 8
            x0_hat = project(logits, params, sampling_seeds, block, t)  # line 9
            end.see(t, logits, x0_hat, commit(logits, x0_hat))
            if end.is_over:
                break
        answer_ids = torch.cat([answer_ids, end.token_ids], -1)  # line 13
        is_answered = (answer_ids == eos_token_id).any(-1)
        if bool(is_answered.all()):
            break
    return [prune(row, eos_token_id)[: params.max_tokens] for row in answer_ids.tolist()]


def noised_simplex(
    x0_hat: Tensor | None,
    noise_seeds: Sequence[int],
    block: int,
    timestep: int,
    params: DecodingParams,
    vocab_size: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """x_t from the previous projection and the public noise: lines 1, 10 and 11 of Algorithm 2.

    Args:
        x0_hat: the previous projection, [B, L, V], or None for pure noise at a block's start.
        noise_seeds: one a row.
        block: index of the block.
        timestep: t of the x_t to make.
        params: L and K.
        vocab_size: V.
        device: where to compute it.

    Returns:
        x_t: [B, L, V], float32.
    """
    z = params.simplex_value * gaussian_noise(  # lines 1 and 10
        noise_seeds, block=block, timestep=timestep, length=params.block_size, vocab_size=vocab_size, device=device
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


def project(logits: Tensor, params: DecodingParams, sampling_seeds: Sequence[int], block: int, timestep: int) -> Tensor:
    """Line 9 of Algorithm 2, with the device's own draws.

    Args:
        logits: [B, L, V].
        params: projection, top_p, temperature and K.
        sampling_seeds: one a row; read by the sampling projection only.
        block: index of the block.
        timestep: t that the logits belong to.

    Returns:
        x0_hat: [B, L, V], every entry +K or -K.
    """
    if params.projection == "greedy":
        return project_greedy(logits, params.simplex_value)
    if params.temperature != 1:
        logits = logits / params.temperature
    if params.projection == "multi-hot":
        return project_multi_hot(logits, top_p=params.top_p, simplex_value=params.simplex_value)
    uniform = uniform_noise(
        sampling_seeds, block=block, timestep=timestep, length=logits.shape[1], device=logits.device
    )
    return project_sampling(logits, uniform, top_p=params.top_p, simplex_value=params.simplex_value)


def commit(logits: Tensor, x0_hat: Tensor) -> Tensor:
    """Line 13 of Algorithm 2: the tokens of a block, from its last projection.

    The argmax of the simplex; among the several tokens that a multi-hot projection leaves at a
    position, the one with the largest logit.

    Returns:
        int64, [B, L].
    """
    return logits.float().masked_fill(x0_hat < 0, float("-inf")).argmax(-1)


def prune(token_ids: list[int], eos_token_id: int) -> list[int]:
    """Drop the first EOS and all behind it (footnote 11)."""
    return token_ids[: token_ids.index(eos_token_id)] if eos_token_id in token_ids else token_ids
