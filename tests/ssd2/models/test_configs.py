"""Positions of the models: what prompt and answer leave for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import demo_shaped_model, experts_of, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from ssd2.algorithm.measured import MeasuredDecoding
from ssd2.errors import CheckpointInvalid
from ssd2.models.configs import AutoregressiveConfig, ModelConfig, SSDLMConfig
from ssd2.models.registry import family_named

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


MEASURED = {"stop": 0.2, "steps": 8, "patience": 1, "self_conditioning": "projection"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": "8"}, "steps is '8'"),
        ({"steps": 700, "stop": 0.4}, "room above 0.4T"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"self_conditioning": "mixed"}, "choose from own, projection"),
    ],
)
def test_a_measured_setting_that_cannot_be_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(CheckpointInvalid, match=named):
        tiny_config(**changes)
    if "self_conditioning" not in changes:
        with pytest.raises(CheckpointInvalid, match=named):
            _ssd_lm(MeasuredDecoding(**changes))


def test_experts_are_measured_like_a_single_model_but_never_stop_below_their_ranges() -> None:
    config = experts_of(*(demo_shaped_model(seed, **MEASURED) for seed in range(3))).config
    assert config.measured == MeasuredDecoding(0.4, 8, 1, "projection")
    assert replace(config, stop=0.5).measured.stop == 0.5


def test_config_json_has_a_measured_setting_only_if_it_was_measured() -> None:
    """An earlier release reads the checkpoint too, which refuses keys that it does not know."""
    write = family_named("ssd-2").write_config
    assert write
    assert not {"steps", "patience", "self_conditioning"} & write(tiny_config()).keys()
    assert {name: write(tiny_config(**MEASURED))[name] for name in MEASURED} == MEASURED


def _ssd_lm(measured: MeasuredDecoding) -> SSDLMConfig:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return SSDLMConfig(vocab_size=32, max_positions=48, measured=measured, **ids)
