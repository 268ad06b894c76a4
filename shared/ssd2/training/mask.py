"""The attention mask of App. A: all blocks of a sequence trained in one pass."""

from __future__ import annotations

import torch
from torch import Tensor


def delta(prompt_length: int, blocks: int, block_size: int, device: torch.device | str = "cpu") -> Tensor:
    """The mask δ(c_0, n, B) over concat(context, noised blocks).

    The context holds the prompt and all but the last block, and is causal. Noised block k sees the
    context before it, c_0 + kB tokens, and itself in both directions.

    Source: the paper, App. A, as its worked example δ(1, 2, 2) fixes the borders.

    Args:
        prompt_length: c_0, at least 1.
        blocks: n, at least 1.
        block_size: B of the paper, L here.
        device: where to build it.

    Returns:
        bool, [S, S] with S = c_0 + (2n-1)B; row i is True where token i may attend.
    """
    context = prompt_length + (blocks - 1) * block_size
    index = torch.arange(context + blocks * block_size, device=device)
    is_context = index < context
    block = (index - context).div(block_size, rounding_mode="floor")  # k; meaningless for the context
    row, column = index[:, None], index[None, :]
    causal = is_context[:, None] & (column <= row)
    before_block = ~is_context[:, None] & (column < prompt_length + block[:, None] * block_size)
    own_block = ~is_context[:, None] & ~is_context[None, :] & (block[:, None] == block[None, :])
    return causal | (before_block & is_context[None, :]) | own_block
