"""What an answer is decoded with where nothing is said."""

from __future__ import annotations

import pytest
from conftest import tiny_config

from ssd2.algorithm.block_end import patience_from, patience_of_the_core
from ssd2.algorithm.measured import UNMEASURED, MeasuredDecoding
from ssd2.algorithm.noise_schedule import readable_from
from ssd2.algorithm.params import DecodingParams
from ssd2.demo.paths import CORE, USER
from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import load_config_and_tokenizer
from ssd2.models.configs import SSDLMConfig
from user_agent.answering.decoding import MAX_CORE_STEPS, decoding_for, default_patience
from user_agent.answering.request import AnswerSettings


def decoding(**given: object) -> DecodingParams:
    return decoding_for(AnswerSettings(**given), tiny_config())


@pytest.mark.parametrize(
    ("steps", "patience"), [(1, 2), (10, 2), (25, 2), (37, 2), (38, 3), (50, 4), (250, 20), (1000, 80)]
)
def test_the_default_patience_is_2_in_25_and_never_fewer_than_2(steps: int, patience: int) -> None:
    assert default_patience(steps) == patience


def test_the_default_follows_the_steps_that_are_decoded_with() -> None:
    assert decoding().patience == 2
    assert decoding(steps=100).patience == 8
    assert decoding(steps=100, patience=3).patience == 3


def test_the_shipped_pair_decodes_to_the_end_and_ends_blocks_where_x_t_can_be_read() -> None:
    for folder in (CORE, USER):
        config, _ = load_config_and_tokenizer(folder)
        params = decoding_for(AnswerSettings(), config)
        assert (params.stop, params.patience, params.self_conditioning) == (0.0, 2, "projection")
        assert patience_of_the_core(params, config.vocab_size) == 2
        assert patience_from(0.0, config.vocab_size) == readable_from(config.vocab_size) < 320


def test_patience_0_is_none() -> None:
    assert decoding(patience=0) == DecodingParams.for_model(tiny_config())


def test_an_entropy_bound_goes_with_the_default_patience_and_not_without_any() -> None:
    assert decoding(entropy_bound=0.1).entropy_bound == 0.1
    with pytest.raises(InvalidParameter, match="only with patience"):
        decoding(entropy_bound=0.1, patience=0)


@pytest.mark.parametrize("projection", ["sampling", "multi-hot"])
def test_temperature_0_decodes_greedily_whatever_the_projection(projection: str) -> None:
    assert decoding(temperature=0, projection=projection).projection == "greedy"
    assert decoding(temperature=0.5, projection=projection).projection == projection


CORES_OWN = MeasuredDecoding(0.2, 16, 1, "projection")


def chosen(core: MeasuredDecoding | None, user: dict[str, object] | None = None, **given: object) -> tuple[object, ...]:
    """Stop, timesteps, patience and self-conditioning of an answer."""
    params = decoding_for(AnswerSettings(**given), tiny_config(**(user or {})), core)
    return params.stop, params.steps, params.patience, params.self_conditioning


def test_what_was_measured_for_the_core_is_taken_where_nobody_chose() -> None:
    assert chosen(CORES_OWN) == (0.2, 16, 1, "projection")
    assert chosen(MeasuredDecoding(0.0, 16, 0, "own")) == (0.0, 16, None, "own")
    assert chosen(MeasuredDecoding(self_conditioning="projection")) == (0.0, 25, 2, "projection")


def test_without_measured_settings_an_answer_is_as_before() -> None:
    for core in (None, UNMEASURED):
        assert chosen(core) == (0.0, 25, 2, "own")
        assert chosen(core, {"stop": 0.4}, steps=100) == (0.4, 100, 8, "own")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"early_stop": 0.0}, (0.0, 16, 1, "projection")),
        ({"steps": 64}, (0.2, 64, 4, "projection")),
        ({"steps": 1000, "early_stop": 0.0}, (0.0, 1000, 62, "projection")),
        ({"patience": 0}, (0.2, 16, None, "projection")),
        ({"patience": 7}, (0.2, 16, 7, "projection")),
        ({"self_conditioning": "own"}, (0.2, 16, 1, "own")),
    ],
    ids=str,
)
def test_what_the_user_chose_wins_over_what_was_measured(given: dict[str, object], expected: tuple[object]) -> None:
    assert chosen(CORES_OWN, **given) == expected


def test_the_user_model_s_own_settings_are_taken_where_the_core_was_not_measured_or_takes_no_part() -> None:
    user = {"stop": 0.1, "steps": 8, "patience": 1, "self_conditioning": "projection"}
    for core in (None, UNMEASURED):
        assert chosen(core, user) == (0.1, 8, 1, "projection")
    assert chosen(MeasuredDecoding(0.0, 16, 4, "own"), user) == (0.1, 16, 4, "own")


def test_a_core_cannot_have_a_device_show_more_than_100_draws_of_a_block() -> None:
    assert chosen(MeasuredDecoding(0.0, 1000, 0))[:3] == (0.0, MAX_CORE_STEPS, None)
    assert chosen(MeasuredDecoding(0.0, 1000, 40))[:3] == (0.0, MAX_CORE_STEPS, 4)
    assert chosen(MeasuredDecoding(0.0, 1000, 0), steps=1000)[1] == 1000, "the user can"
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    ssd_lm = SSDLMConfig(vocab_size=32, max_positions=48, **ids)
    assert decoding_for(AnswerSettings(), ssd_lm, MeasuredDecoding(0.0, 250)).steps == 250, "it takes 1000 anyway"


def test_an_entropy_bound_works_with_a_core_that_ends_no_block_early() -> None:
    assert chosen(MeasuredDecoding(0.0, 16, 0), entropy_bound=0.1)[2] == 2
