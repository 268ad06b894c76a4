"""Positions of the models: what prompt and answer leave for each other."""

from __future__ import annotations

import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st

from ssd2.models.configs import AutoregressiveConfig, ModelConfig, SSDLMConfig

CONFIGS: tuple[ModelConfig, ...] = (
    tiny_config(),
    tiny_config(answer_position=20),
    SSDLMConfig(vocab_size=32, max_positions=48, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    AutoregressiveConfig(vocab_size=32, max_positions=48, bos_token_id=1, eos_token_id=2, pad_token_id=0),
)


@pytest.mark.parametrize("config", CONFIGS)
@given(prompt_tokens=st.integers(1, 60), answer_tokens=st.integers(1, 60))
def test_an_answer_has_room_behind_a_prompt_if_the_prompt_has_room_before_it(
    config: ModelConfig, prompt_tokens: int, answer_tokens: int
) -> None:
    has_room = prompt_tokens <= config.max_prompt_tokens_before(answer_tokens)
    assert (answer_tokens <= config.max_answer_tokens_behind(prompt_tokens)) == has_room
