"""The cosine schedule and the timesteps of a decode."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd2.algorithm.noise_schedule import alpha_bar, readable_from
from ssd2.algorithm.timesteps import decoding_timesteps
from ssd2.errors import InvalidParameter


@pytest.mark.parametrize("t", [1, 50, 250, 400, 500, 750, 999, 1000])
def test_alpha_bar_is_the_cosine_schedule_of_ssd_lm(t: int) -> None:
    r = [math.cos((x / 1000 + 0.0001) / 1.0001 * math.pi / 2) ** 2 for x in (0, t)]
    assert alpha_bar(torch.tensor(t)).item() == pytest.approx(r[1] / r[0], rel=1e-6, abs=1e-12)


def test_alpha_bar_at_places_worked_out_by_hand() -> None:
    # At t = T the angle is π/2; half-way it is π/4 but for s, which shifts it by 7.8e-5.
    assert alpha_bar(torch.tensor(0)).item() == 1.0
    assert alpha_bar(torch.tensor(500)).item() == pytest.approx(0.49992, abs=1e-5)
    assert alpha_bar(torch.tensor(1000)).item() == pytest.approx(0.0, abs=1e-12)


def test_alpha_bar_falls_from_1_to_0_and_keeps_the_shape_it_is_given() -> None:
    values = alpha_bar(torch.arange(1001).view(7, 143))
    assert values.shape == (7, 143)
    assert values.dtype == torch.float32
    assert bool((values.flatten().diff() < 0).all())
    assert 0 <= values.min() <= values.max() <= 1


@given(st.integers(1, 1000), st.integers(0, 999))
def test_timesteps_start_at_t_and_stay_above_the_early_stop(steps: int, stop_in_thousandths: int) -> None:
    room = 1000 - stop_in_thousandths
    if steps > room:
        with pytest.raises(InvalidParameter, match=f"room for 1 to {room}"):
            decoding_timesteps(steps, stop_in_thousandths / 1000)
        return
    timesteps = decoding_timesteps(steps, stop_in_thousandths / 1000)
    assert len(timesteps) == steps
    assert timesteps[0] == 1000
    assert timesteps[-1] > stop_in_thousandths
    gaps = [before - after for before, after in pairwise(timesteps)]
    assert all(gap in (room // steps, -(-room // steps)) for gap in gaps)


def test_a_stop_at_04_visits_the_papers_timesteps() -> None:
    assert decoding_timesteps(3, 0.4) == (1000, 800, 600)
    assert decoding_timesteps(1, 0.4) == (1000,)
    assert decoding_timesteps(600, 0.4) == tuple(range(1000, 400, -1))


@pytest.mark.parametrize(("vocab_size", "share"), [(512, 0.33), (1782, 0.30), (50272, 0.26)])
def test_the_projected_token_is_read_in_x_t_from_the_gate_on(vocab_size: int, share: float) -> None:
    assert readable_from(vocab_size) == pytest.approx(1000 * share, abs=5)
    generator = torch.Generator().manual_seed(0)
    found = []
    for t in (readable_from(vocab_size), 500):
        alpha_bar_t = alpha_bar(torch.tensor(t))
        x_t = (1 - alpha_bar_t).sqrt() * torch.randn(200, vocab_size, generator=generator)
        x_t[:, 0] += 2 * alpha_bar_t.sqrt()  # the token at +K, in units of K
        found.append((x_t.argmax(-1) == 0).float().mean().item())
    assert found[0] > 0.5, "at the gate it is the largest entry more often than not"
    assert found[1] < 0.25, "halfway to T it is lost in the noise"


def test_without_an_early_stop_every_timestep_can_be_visited() -> None:
    assert decoding_timesteps(1000, 0) == tuple(range(1000, 0, -1))


def test_timesteps_are_evenly_spread() -> None:
    timesteps = decoding_timesteps(7, 0.4)
    assert timesteps == tuple(1000 - int(Fraction(i * 600, 7)) for i in range(7))


def _count(timesteps: tuple[int, ...], above: int, up_to: int) -> int:
    return sum(above < t <= up_to for t in timesteps)


@pytest.mark.parametrize(("steps", "parts"), [(10, (2, 5, 3)), (20, (4, 10, 6)), (400, (80, 200, 120))])
def test_the_schedule_changes_has_most_timesteps_where_most_tokens_change(steps: int, parts: tuple[int, ...]) -> None:
    timesteps = decoding_timesteps(steps, 0.4, "changes")
    counts = [_count(timesteps, low, low + 200) for low in (800, 600, 400)]
    assert tuple(counts) == parts


def test_the_schedule_changes_is_even_within_a_range() -> None:
    assert decoding_timesteps(10, 0.4, "changes") == (1000, 900, 800, 760, 720, 680, 640, 600, 534, 467)
    assert decoding_timesteps(11, 0, "changes") == (1000, 900, 800, 760, 720, 680, 640, 600, 534, 467, 400)
    assert decoding_timesteps(4, 0.9, "changes") == (1000, 975, 950, 925)  # a range that is cut is even too


@given(st.integers(1, 1000), st.integers(0, 999))
def test_every_schedule_fits_its_timesteps_or_says_how_many_do(steps: int, stop_in_thousandths: int) -> None:
    stop = stop_in_thousandths / 1000
    try:
        timesteps = decoding_timesteps(steps, stop, "changes")
    except InvalidParameter as refusal:
        room = int(str(refusal).split("room for 1 to ")[1].split()[0])
        assert 1 <= room < steps
        assert len(decoding_timesteps(room, stop, "changes")) == room
        return
    assert len(timesteps) == steps
    assert timesteps[0] == 1000
    assert timesteps[-1] > stop_in_thousandths
    assert all(before > after for before, after in pairwise(timesteps))


def test_a_schedule_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidParameter, match="'odd'; choose from even, changes"):
        decoding_timesteps(5, 0.4, "odd")


@pytest.mark.parametrize("schedule", ["even", "changes"])
def test_a_stop_that_leaves_no_timestep_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidParameter, match="room for 1 to 0"):
        decoding_timesteps(1, 0.9999999999, schedule)


@pytest.mark.parametrize("steps", [0, -1, 601, 10**9])
def test_a_count_that_does_not_fit_says_what_does(steps: int) -> None:
    with pytest.raises(InvalidParameter, match=r"room for 1 to 600"):
        decoding_timesteps(steps, 0.4)


@pytest.mark.parametrize("stop", [-0.1, 1.0, 1.5, float("nan")])
def test_a_stop_outside_its_range_is_refused(stop: float) -> None:
    with pytest.raises(InvalidParameter, match=r"must be in \[0, 1\)"):
        decoding_timesteps(5, stop)
