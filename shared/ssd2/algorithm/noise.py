"""Counter-based random numbers: pure functions of a seed and a place in the decode.

The core never receives x_t: both sides compute the same noise from the public noise seed, on
whatever device they run. Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is integer arithmetic, so its bits are the same everywhere; Box–Muller turns
them into normals that agree between CPU and GPU up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 10

FEW = 32
"""Uniform numbers that Python draws faster one by one than torch launches the operations for."""


Word = TypeVar("Word", int, Tensor)


def philox_4x32(counter: tuple[Word, Word, Word, Word], key: Word) -> tuple[Word, Word, Word, Word]:
    """Philox-4x32-10.

    Args:
        counter: four words in [0, 2³²): whole numbers, or int64 tensors that can be broadcast.
        key: of 64 bits, likewise.

    Returns:
        Four words of random bits, likewise.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _WORD, (key >> 32) & _WORD
    tensors = [word for word in (*counter, key) if isinstance(word, Tensor)]
    shape = torch.broadcast_shapes(*(word.shape for word in tensors)) if tensors else None
    for _ in range(_ROUNDS):
        # int64 wraps around, which keeps all 64 bits of the 32 x 32 product.
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = _mixed(product_1, c1, k0, shape), _mixed(product_0, c3, k1, shape)
        product_0 &= _WORD  # in place, if it is a tensor
        product_1 &= _WORD
        c1, c3 = product_1, product_0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _WORD, (k1 + _KEY_INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


def _mixed(product: Word, word: Word, key: Word, shape: torch.Size | None) -> Word:
    """The high word of a product, mixed with another word and the key; in one piece of memory once it has its shape."""
    mixed = product >> 32
    if isinstance(mixed, Tensor) and mixed.shape == shape:
        mixed ^= word
        mixed ^= key
    else:
        mixed = mixed ^ word ^ key
    mixed &= _WORD
    return mixed


# See docs/decisions/003-noise-and-two-seeds.md.
def gaussian_noise(
    seeds: Sequence[int] | Tensor,
    *,
    block: int | Tensor,
    timestep: int | Tensor,
    length: int,
    vocab_size: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise for one block at one timestep.

    Entry (position, v) depends on (seed, block, timestep, position, v) alone: neither on the
    device, nor on the length of the block, nor on the other rows of the batch.

    Args:
        seeds: one public noise seed a row, each in [0, 2⁶³); int64, [B], as a tensor.
        block: index of the block in the answer, of all rows or int64, [B].
        timestep: t, in [0, T], of all rows or int64, [B].
        length: L, positions in the block.
        vocab_size: V.
        device: where to compute it.

    Returns:
        [B, L, V], float32.
    """
    words = _words(seeds, block, timestep, length, (vocab_size + 3) // 4, device)
    normals = torch.empty(*words[0].shape, 4, device=words[0].device)
    for index in (0, 2):
        radius, angle = _box_muller(_uniform(words[index]), _uniform(words[index + 1]))
        torch.mul(radius, angle.cos(), out=normals[..., index])
        torch.mul(radius, angle.sin(), out=normals[..., index + 1])
    return normals.flatten(-2)[..., :vocab_size]


def uniform_noise(
    seeds: Sequence[int], *, block: int, timestep: int, length: int, device: torch.device | str = "cpu"
) -> Tensor:
    """One uniform number in (0, 1] for every position of a block at one timestep.

    Args:
        seeds: one seed a row, each in [0, 2⁶³).
        block: index of the block in the answer.
        timestep: t, in [0, T].
        length: L, positions in the block.
        device: where to put it.

    Returns:
        [B, L], float32.
    """
    return _drawn(tuple(seeds), block, timestep, length, torch.device(device))


@lru_cache(maxsize=16)
def _drawn(seeds: tuple[int, ...], block: int, timestep: int, length: int, device: torch.device) -> Tensor:
    """Draw once: the mix, the core's choice and the proof have the same draws."""
    if len(seeds) * length > FEW:
        return _uniform(_words(seeds, block, timestep, length, 1, device)[0]).squeeze(-1)
    words = [[philox_4x32((block, timestep, position, 0), seed)[0] for position in range(length)] for seed in seeds]
    return _uniform(torch.tensor(words, device=device))


def _words(
    seeds: Sequence[int] | Tensor,
    block: int | Tensor,
    timestep: int | Tensor,
    length: int,
    width: int,
    device: torch.device | str,
) -> tuple[Tensor, ...]:
    """Philox words for counters (block, timestep, position, index < width), each [B, L, width]."""

    def column(values: Sequence[int] | Tensor | int) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=device).reshape(-1, 1, 1)

    position = torch.arange(length, device=device)[None, :, None]
    index = torch.arange(width, device=device)[None, None, :]
    return philox_4x32((column(block), column(timestep), position, index), column(seeds))


def _uniform(word: Tensor) -> Tensor:
    """The word's upper 24 bits as a float32 in (0, 1], exact on every device."""
    return (word >> 8).add_(1).to(torch.float32).mul_(2.0**-24)


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle of two independent normals, in the memory of the two uniform numbers."""
    return u.log_().mul_(-2.0).sqrt_(), v.mul_(2.0 * math.pi)
