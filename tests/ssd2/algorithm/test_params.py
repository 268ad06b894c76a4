"""What a decode can be asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ssd2.algorithm.params import CollaborationParams, DecodingParams, LambdaUser, Seeds, parse_lambda
from ssd2.errors import InvalidParameter


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"block_size": 0}, "block size is 0"),
        ({"max_tokens": 0}, "max tokens is 0"),
        ({"projection": "argmax"}, "greedy, sampling, multi-hot"),
        ({"top_p": 0.0}, "top-p is 0.0"),
        ({"top_p": 1.1}, "top-p is 1.1"),
        ({"top_p": float("nan")}, "top-p is nan"),
        ({"self_conditioning": "theirs"}, "own, projection, mixed"),
        ({"simplex_value": 0.0}, "simplex value is 0.0"),
        ({"simplex_value": float("nan")}, "simplex value is nan"),
        ({"simplex_value": float("inf")}, "simplex value is inf"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 601, "stop": 0.4}, "room for 1 to 600"),
        ({"stop": 1.0}, "stop is 1.0"),
        ({"schedule": "odd"}, "even, changes"),
        ({"schedule": "changes", "steps": 401, "stop": 0.4}, "room for 1 to 400"),
        ({"patience": 0}, "patience is 0"),
        ({"entropy_bound": 0.1}, "only with patience"),
        ({"patience": 1, "entropy_bound": 0.0}, "entropy bound is 0.0"),
        ({"patience": 1, "entropy_bound": float("nan")}, "entropy bound is nan"),
        ({"core_every": 0}, "core every is 0"),
    ],
)
def test_a_decoding_parameter_outside_its_range_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter, match=named):
        DecodingParams(**{"block_size": 8, **changes})


@pytest.mark.parametrize(("max_tokens", "blocks"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_answers_are_rounded_up_to_whole_blocks(max_tokens: int, blocks: int) -> None:
    assert DecodingParams(block_size=8, max_tokens=max_tokens).max_blocks == blocks


def test_the_timesteps_are_those_of_the_schedule() -> None:
    assert DecodingParams(block_size=8, steps=4, stop=0.2).timesteps == (1000, 800, 600, 400)
    assert DecodingParams(block_size=8, steps=1).timesteps == (1000,)
    assert DecodingParams(block_size=8, steps=10, stop=0.4, schedule="changes").timesteps[:3] == (1000, 900, 800)


def test_the_core_is_asked_at_the_first_timestep_and_at_every_so_many_after_it() -> None:
    params = DecodingParams(block_size=8, steps=5, stop=0.0, core_every=2)
    assert params.core_timesteps == (1000, 600, 200)
    assert [params.asks_core_at(step) for step in range(5)] == [True, False, True, False, True]
    assert DecodingParams(block_size=8, steps=3, stop=0.4, core_every=100).core_timesteps == (1000,)


def test_all_timesteps_leaves_out_the_early_end_alone() -> None:
    params = DecodingParams(block_size=8, steps=7, stop=0.4, patience=2, entropy_bound=0.5, core_every=3)
    assert params.with_all_timesteps() == DecodingParams(block_size=8, steps=7, stop=0.4, core_every=3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lambda_user": -0.1}, "lambda-user is -0.1"),
        ({"lambda_user": 1.1}, "lambda-user is 1.1"),
        ({"lambda_user": float("nan")}, "lambda-user is nan"),
        ({"lambda_user": "automatic"}, "auto or difference"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"alpha": float("nan")}, "alpha is nan"),
    ],
)
def test_a_weight_outside_its_range_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter, match=named):
        CollaborationParams(**changes)


@pytest.mark.parametrize(
    ("lambda_user", "alpha", "core", "user", "contrast"),
    [
        (0.0, 1.0, True, False, False),
        (0.3, 1.0, True, True, True),
        (0.3, 0.0, True, True, False),
        (1.0, 1.0, False, True, True),
        (1.0, 0.0, False, True, False),
        ("auto", 1.0, True, True, True),
        ("auto", 0.0, True, True, True),
        ("difference", 1.0, True, True, True),
        ("difference", 0.0, True, False, False),
    ],
)
def test_terms_of_weight_0_are_not_used(
    lambda_user: LambdaUser, alpha: float, core: bool, user: bool, contrast: bool
) -> None:
    params = CollaborationParams(lambda_user=lambda_user, alpha=alpha)
    assert (params.uses_core, params.uses_user, params.reads_without_docs) == (core, user, contrast)


@pytest.mark.parametrize(
    ("typed", "expected"), [("0.4", 0.4), ("1", 1.0), (" Auto ", "auto"), ("difference", "difference")]
)
def test_lambda_is_read_as_a_number_or_as_a_rule(typed: str, expected: LambdaUser) -> None:
    assert parse_lambda(typed) == expected


@pytest.mark.parametrize("typed", ["", "1.5", "nan", "-1", "automatic", "0.3,0.4"])
def test_text_that_is_no_lambda_is_refused_with_what_to_give(typed: str) -> None:
    with pytest.raises(InvalidParameter, match="give a number from 0 to 1, or auto or difference"):
        parse_lambda(typed)


@pytest.mark.parametrize(
    ("setting", "label"),
    [((0.3, 1.0), "λ 0.3, α 1"), (("auto", 0.0), "λ auto, α 0"), (("difference", 2.0), "λ difference, α 2")],
)
def test_a_setting_has_a_label(setting: tuple[LambdaUser, float], label: str) -> None:
    assert CollaborationParams(*setting).label == label


def test_parameters_cannot_be_changed_behind_their_check() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodingParams(block_size=8).top_p = 7.0  # type: ignore[misc]


def test_fresh_seeds_are_in_range_and_never_the_same() -> None:
    drawn = [seed for _ in range(50) for seed in dataclasses.astuple(Seeds.fresh())]
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert len(set(drawn)) == 100


def test_reproducible_seeds_repeat_and_differ_in_purpose() -> None:
    assert Seeds.reproducible(7) == Seeds.reproducible(7)
    drawn = [seed for number in (0, 1, 7, 2**63 - 1) for seed in dataclasses.astuple(Seeds.reproducible(number))]
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert len(set(drawn)) == 8


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    with pytest.raises(InvalidParameter, match="seed is"):
        Seeds.reproducible(seed)
