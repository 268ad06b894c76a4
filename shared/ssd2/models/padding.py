"""Prompts of any lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd2.models.configs import ModelConfig
from ssd2.models.prompts import check_prompts


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
