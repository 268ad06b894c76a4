"""What an answer is decoded with where nothing is said."""

from __future__ import annotations

import pytest
from conftest import tiny_config

from ssd2.algorithm.block_end import patience_from, patience_of_the_core
from ssd2.algorithm.params import DecodingParams
from ssd2.demo.paths import CORE, USER
from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import load_config_and_tokenizer
from user_agent.answering.decoding import decoding_for, default_patience
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


def test_the_shipped_pair_stops_where_it_was_trained_to_and_ends_blocks_early() -> None:
    for folder in (CORE, USER):
        config, _ = load_config_and_tokenizer(folder)
        params = decoding_for(AnswerSettings(), config)
        assert (params.stop, params.patience, params.timesteps[-1]) == (0.4, 2, 424)
        assert patience_of_the_core(params, config.vocab_size) == 2
        assert patience_from(1000 * params.stop, config.vocab_size) == 1000, "patience counts at every timestep"


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
