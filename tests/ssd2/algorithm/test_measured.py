"""Measured decoding settings: which can be, and those of two checkpoints together."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import tiny_config

from ssd2.algorithm.measured import UNMEASURED, MeasuredDecoding, of_pair
from ssd2.algorithm.params import DecodingParams


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stop": 1}, "stop is 1;"),
        ({"stop": True}, "stop is True;"),
        ({"stop": float("nan")}, "stop is nan;"),
        ({"steps": 0}, "steps is 0;"),
        ({"steps": 8.0}, "steps is 8.0;"),
        ({"steps": 601, "stop": 0.4}, "room above 0.4T"),
        ({"patience": -1}, "patience is -1;"),
        ({"patience": "2"}, "patience is '2';"),
        ({"self_conditioning": "mixed"}, "choose from own, projection"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], named: str) -> None:
    assert named in MeasuredDecoding(**settings).problem


@pytest.mark.parametrize("measured", [UNMEASURED, MeasuredDecoding(0.4, 600, 0, "own"), MeasuredDecoding(0, 1, 1000)])
def test_settings_that_can_be_have_no_problem(measured: MeasuredDecoding) -> None:
    assert measured.problem == ""


@pytest.mark.parametrize(
    ("patience", "of_steps", "steps", "expected"),
    [(2, 8, 8, 2), (2, 8, 100, 25), (4, 100, 25, 2), (1, 8, 4, 1), (1, 8, 16, 2), (0, 8, 100, 0), (None, 8, 8, None)],
)
def test_patience_is_in_proportion_to_the_timesteps_that_it_was_measured_in(
    patience: int | None, of_steps: int, steps: int, expected: int | None
) -> None:
    assert MeasuredDecoding(0.0, of_steps, patience).patience_in(steps) == expected


def test_patience_that_was_measured_alone_is_in_25_timesteps() -> None:
    assert MeasuredDecoding(patience=2).patience_in(100) == 8


CORE, USER = MeasuredDecoding(0.0, 8, 1, "projection"), MeasuredDecoding(0.2, 42, 3, "own")


@pytest.mark.parametrize(
    ("core", "user", "together"),
    [
        (UNMEASURED, UNMEASURED, UNMEASURED),
        (CORE, UNMEASURED, CORE),
        (UNMEASURED, USER, USER),
        (CORE, USER, MeasuredDecoding(0.2, 8, 1, "projection")),
        (MeasuredDecoding(0.4), USER, MeasuredDecoding(0.4, 42, 3, "own")),
        (MeasuredDecoding(0.0, 8), USER, MeasuredDecoding(0.2, 8, None, "own")),
        (MeasuredDecoding(0.0, None, 1), USER, MeasuredDecoding(0.2, 42, 3, "own")),
    ],
)
def test_a_pair_has_the_higher_stop_and_otherwise_the_core_s_settings(
    core: MeasuredDecoding, user: MeasuredDecoding, together: MeasuredDecoding
) -> None:
    """Patience and timesteps are never those of two checkpoints: one counts the other."""
    assert of_pair(core, user) == together


def test_a_decode_takes_what_was_measured_unless_chosen_otherwise() -> None:
    config = tiny_config(stop=0.2, steps=8, patience=1, self_conditioning="projection")
    own = DecodingParams.for_model(config)
    assert (own.stop, own.steps, own.patience, own.self_conditioning) == (0.2, 8, 1, "projection")
    chosen = DecodingParams.for_model(config, stop=0.0, steps=32, self_conditioning="own")
    assert (chosen.stop, chosen.steps, chosen.patience, chosen.self_conditioning) == (0.0, 32, 4, "own")
    assert DecodingParams.for_model(config, patience=0).patience is None
    assert DecodingParams.for_model(config, patience=5).patience == 5


def test_without_measured_settings_a_decode_is_as_it_was() -> None:
    assert DecodingParams.for_model(tiny_config()) == DecodingParams(block_size=4)
    assert DecodingParams.for_model(tiny_config(stop=0.4), steps=10) == DecodingParams(block_size=4, steps=10, stop=0.4)


def test_what_was_measured_with_a_pair_takes_the_place_of_a_model_s_own() -> None:
    config = tiny_config(stop=0.2, steps=8, patience=1, self_conditioning="projection")
    paired = DecodingParams.for_model(config, MeasuredDecoding(0.4, 16, 0, "own"))
    assert (paired.stop, paired.steps, paired.patience, paired.self_conditioning) == (0.4, 16, None, "own")
