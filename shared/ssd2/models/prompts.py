"""Checks of prompts against what a model can read."""

from __future__ import annotations

from collections.abc import Sequence

from ssd2.algorithm.vocabulary import check_range
from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.configs import ModelConfig


def check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> None:
    """Check what a model is to read.

    Raises:
        PromptTooLong: if a prompt does not fit the model's positions.
        InvalidParameter: if a prompt is empty.
        TokenOutOfRange: if a prompt holds an id outside the vocabulary.
    """
    longest = max(len(prompt) for prompt in prompts)
    if min(len(prompt) for prompt in prompts) < 1:
        raise InvalidParameter("a prompt is empty; begin it with the model's first token", parameter="question")
    if longest > config.max_prompt_tokens:
        raise PromptTooLong(
            f"the prompt has {longest} tokens, and this model takes at most {config.max_prompt_tokens}; shorten it",
            parameter="question",
            limit=config.max_prompt_tokens,
        )
    for prompt in prompts:
        check_range(min(prompt), max(prompt), config.vocab_size)
