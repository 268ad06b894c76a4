"""Prompts of any lengths: what a model can read, and several as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.family import ModelConfig
from ssd2.simplex import check_ids


def left_padded(
    prompts: Sequence[Sequence[int]], config: ModelConfig, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, and where they are not.

    Args:
        prompts: B prompts as token ids.
        config: of the model that reads them.
        device: where to put them.

    Returns:
        Token ids, int64, and mask, bool, both [B, C].

    Raises:
        PromptTooLong: if a prompt does not fit the model's positions.
        InvalidParameter: if a prompt is empty.
        TokenOutOfRange: if a prompt holds an id outside the vocabulary.
    """
    check_prompts(prompts, config)
    longest = max(len(prompt) for prompt in prompts)
    rows = [[config.pad_token_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    return torch.tensor(rows, device=device), (torch.arange(longest) >= longest - lengths).to(device)


def check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> None:
    """Check what a model is to read.

    Raises:
        PromptTooLong: if a prompt does not fit the model's positions.
        InvalidParameter: if a prompt is empty.
        TokenOutOfRange: if a prompt holds an id outside the vocabulary.
    """
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) < 1:
        raise InvalidParameter("a prompt is empty; it has to begin with the model's first token")
    if longest > config.max_prompt_tokens:
        raise PromptTooLong(
            f"the prompt has {longest} tokens, this model takes at most {config.max_prompt_tokens}; shorten it"
        )
    for prompt in prompts:
        check_ids(torch.tensor(prompt), config.vocab_size)
