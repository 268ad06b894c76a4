"""A projection that is called proven is the one of full logits; and the common case is called so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd2.algorithm.collaboration import Mixer, UserLogits
from ssd2.algorithm.exactness import proven
from ssd2.algorithm.params import PROJECTIONS, RULES, CollaborationParams, DecodingParams, LambdaUser
from ssd2.algorithm.sampler import project
from ssd2.algorithm.simplex import tokens_to_simplex
from ssd2.logits.format import FLOAT16, PREFERRED, UINT8, LogitsFormat
from ssd2.logits.packed import as_received

L = 6
FORMATS = [FLOAT16, UINT8, *(LogitsFormat("top-k", k) for k in (1, 2, 5, 20, 64, 100))]


def logits_like(seed: int, vocab_size: int, scale: float, peak: float, step: float) -> Tensor:
    """Random logits, rounded to a step where ties are wanted, with a peak at each position."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(1, L, vocab_size, generator=generator)
    logits.scatter_add_(-1, torch.randint(vocab_size, (1, L, 2), generator=generator), torch.full((1, L, 2), peak))
    return (logits / step).round() * step if step else logits


def projected(
    core: Tensor, user: UserLogits, collaboration: CollaborationParams, params: DecodingParams, seed: int = 5
) -> Tensor:
    """x0_hat and, as one more entry, the token that would be committed, [1, L, V + 1]."""
    mixed = Mixer(collaboration).mix(core, user, 0).logits
    projection = project(mixed, params, [seed], 0, 700)
    x0_hat = tokens_to_simplex(projection.rows, *mixed.shape[1:], params.simplex_value)
    return torch.cat([x0_hat, projection.token_ids[..., None].float()], -1)


def is_proven(
    core: Tensor,
    user: UserLogits,
    how: LogitsFormat,
    collaboration: CollaborationParams,
    params: DecodingParams,
    seed: int = 5,
) -> Tensor:
    received = as_received(core, how)
    mix = Mixer(collaboration).mix(received.values, user, 0)
    return proven(received, mix.logits, mix.weights.core, params, [seed], 0, 700)


@settings(max_examples=600, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    vocab_size=st.sampled_from([2, 3, 40, 97, 300]),
    scales=st.tuples(*[st.sampled_from([0.0, 0.02, 0.3, 2.0, 6.0, 50.0])] * 2),
    peaks=st.tuples(*[st.sampled_from([0.0, 1.0, 6.0, 25.0])] * 2),
    step=st.sampled_from([0.0, 0.03125, 0.25]),
    how=st.sampled_from(FORMATS),
    lambda_user=st.sampled_from([0.0, 1e-6, 0.1, 0.3, 0.5, 0.9, 0.999, *RULES]) | st.floats(0, 0.9999),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    normalise=st.booleans(),
    projection=st.sampled_from(PROJECTIONS),
    top_p=st.sampled_from([1e-5, 0.2, 0.5, 0.9, 0.999, 1.0]) | st.floats(1e-6, 1.0),
)
def test_whatever_is_proven_is_what_full_logits_give(
    seed: int,
    vocab_size: int,
    scales: tuple[float, float],
    peaks: tuple[float, float],
    step: float,
    how: LogitsFormat,
    lambda_user: LambdaUser,
    alpha: float,
    normalise: bool,
    projection: str,
    top_p: float,
) -> None:
    core = logits_like(seed, vocab_size, scales[0], peaks[0], step)
    user = UserLogits(*(logits_like(seed + n, vocab_size, scales[1], peaks[1], step) for n in (1, 2)))
    collaboration = CollaborationParams(lambda_user, alpha, normalise)
    params = DecodingParams(block_size=L, projection=projection, top_p=top_p)
    full = projected(core, user, collaboration, params, seed)
    rounded = projected(as_received(core, how).values, user, collaboration, params, seed)
    positions = is_proven(core, user, how, collaboration, params, seed)
    assert torch.equal(full[positions], rounded[positions])


@pytest.mark.parametrize("lambda_user", RULES)
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("how", [UINT8, LogitsFormat("top-k", 8)], ids=str)
def test_each_position_is_proven_by_the_weight_that_the_core_has_there(
    how: LogitsFormat, projection: str, lambda_user: LambdaUser
) -> None:
    """Close calls, where the documents change little at some positions and everything at others."""
    collaboration, params = CollaborationParams(lambda_user, 1.0), DecodingParams(L, projection=projection, top_p=0.5)
    counted = torch.zeros(2, dtype=torch.int64)
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        core, without = 0.4 * torch.randn(2, 1, L, 24, generator=generator)
        changed = torch.where(torch.rand(1, L, 1, generator=generator) < 0.5, 0.4, 40.0)
        user = UserLogits(without + changed * torch.randn(1, L, 24, generator=generator), without)
        full = projected(core, user, collaboration, params, seed)
        rounded = projected(as_received(core, how).values, user, collaboration, params, seed)
        positions = is_proven(core, user, how, collaboration, params, seed)
        assert torch.equal(full[positions], rounded[positions])
        counted += torch.stack([positions.sum(), (~(full == rounded).all(-1)).sum()])
    assert bool((counted > 0).all()), "nothing was proven, or no close call was lost"


LONG = 40
NOTHING_OF_ITS_OWN = UserLogits(torch.zeros(1, 1, LONG))
EVEN = CollaborationParams(0.5, 0.0)


def position(entries: dict[int, float], others: float = -30.0, vocab_size: int = LONG) -> Tensor:
    """Logits of one position, [1, 1, V]."""
    logits = torch.full((1, 1, vocab_size), others)
    logits[0, 0, list(entries)] = torch.tensor([*entries.values()])
    return logits


def params_of(projection: str, top_p: float = 0.2) -> DecodingParams:
    return DecodingParams(block_size=1, projection=projection, top_p=top_p)


@pytest.mark.parametrize("how", [FLOAT16, UINT8, PREFERRED, LogitsFormat("top-k", 1)], ids=str)
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("lambda_user", [0.0, 0.3, *RULES])
def test_one_token_with_certain_mass_is_proven(
    how: LogitsFormat, projection: str, normalise: bool, lambda_user: LambdaUser
) -> None:
    core, user = (logits_like(seed, 1782, 1.0, 0.0, 0.0) for seed in (1, 2))
    core[..., 7] += 30
    user[..., 7] += 20
    collaboration = CollaborationParams(lambda_user, 1.0, normalise)
    params = DecodingParams(block_size=L, projection=projection, top_p=0.9)
    assert bool(is_proven(core, UserLogits(user, torch.zeros_like(user)), how, collaboration, params).all())


@pytest.mark.parametrize("how", [UINT8, PREFERRED], ids=str)
@pytest.mark.parametrize(("gap", "expected"), [(0.0, False), (0.05, False), (0.2, True)])
def test_a_mode_is_proven_if_it_is_clear_of_the_others_by_more_than_the_rounding(
    how: LogitsFormat, gap: float, expected: bool
) -> None:
    core = position({3: 1.0, 9: 1.0 + gap})
    assert bool(is_proven(core, NOTHING_OF_ITS_OWN, how, EVEN, params_of("greedy"))) == expected


@pytest.mark.parametrize(("lift", "expected"), [(0.0, True), (9.5, True), (10.5, False)])
def test_a_token_that_was_not_sent_is_ruled_out_only_as_far_as_its_bound_goes(lift: float, expected: bool) -> None:
    """It may be as likely for the core as the least one sent, 10 below the largest."""
    core, user = position({3: 10.0, 9: 0.0}, others=-0.5), UserLogits(position({5: lift - 10}, others=-10.0))
    how = LogitsFormat("top-k", 2)
    assert bool(is_proven(core, user, how, EVEN, params_of("greedy"))) == expected


def test_a_token_farther_below_than_the_format_can_say_may_be_any_distance_below() -> None:
    core, user = position({3: 0.0, 5: -50.0}), UserLogits(position({5: 40.0}, others=0.0))
    full, rounded = (projected(c, user, EVEN, params_of("greedy")) for c in (core, as_received(core, UINT8).values))
    assert not torch.equal(full, rounded)
    assert not is_proven(core, user, UINT8, EVEN, params_of("greedy"))


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.59, True), (0.605, False), (0.62, True), (0.97, True), (0.979, False)]
)
@pytest.mark.parametrize("projection", ["sampling", "multi-hot"])
def test_a_nucleus_is_proven_if_its_mass_is_clear_of_top_p(projection: str, top_p: float, expected: bool) -> None:
    """The largest has 0.609 in the mix and the two largest 0.979, the first known to about 0.008."""
    core = 2 * position({3: 1.0, 9: 0.5}, others=-6.0)
    assert bool(is_proven(core, NOTHING_OF_ITS_OWN, UINT8, EVEN, params_of(projection, top_p))) == expected


@pytest.mark.parametrize(("u", "expected"), [(0.3, True), (0.495, False), (0.505, False), (0.7, True), (1.0, True)])
def test_a_draw_is_proven_if_it_is_clear_of_the_border_between_two_tokens(
    monkeypatch: pytest.MonkeyPatch, u: float, expected: bool
) -> None:
    monkeypatch.setattr("ssd2.algorithm.exactness.uniform_noise", lambda *_, **__: torch.tensor([[u]]))
    core = position({3: 5.0, 9: 5.0})
    assert bool(is_proven(core, NOTHING_OF_ITS_OWN, UINT8, EVEN, params_of("sampling", 0.9))) == expected


def test_the_modes_that_a_multi_hot_block_commits_are_proven_too() -> None:
    core = position({3: 5.0, 9: 5.02})
    assert not is_proven(core, NOTHING_OF_ITS_OWN, UINT8, EVEN, params_of("multi-hot", 0.9))
    assert is_proven(position({3: 5.0, 9: 6.0}), NOTHING_OF_ITS_OWN, UINT8, EVEN, params_of("multi-hot", 0.9))


@pytest.mark.parametrize("lambda_user", [0.0, 0.3])
def test_the_tail_that_was_sent_bounds_what_many_unlikely_tokens_have_together(lambda_user: float) -> None:
    """Each of 10,000 could be as likely as the second one sent; together they are known not to be."""
    core = position({3: 0.0, 9: -1.0}, others=-20.0, vocab_size=10_000)
    user, collaboration = UserLogits(torch.zeros_like(core)), CollaborationParams(lambda_user, 0.0)
    assert is_proven(core, user, LogitsFormat("top-k", 2), collaboration, params_of("sampling", 0.5))


@pytest.mark.parametrize("normalise", [False, True])
def test_of_the_core_alone_the_tail_is_known_and_not_only_bounded(normalise: bool) -> None:
    """The mode has 0.21 of the mass; if each of the others could be as likely as the second, it had next to none."""
    core = position({3: 0.0, 9: -1.0}, others=-8.0, vocab_size=10_000)
    alone = CollaborationParams(0.0, 0.0, normalise)
    assert is_proven(core, UserLogits(), LogitsFormat("top-k", 2), alone, params_of("sampling", 0.15))


@pytest.mark.parametrize("how", [UINT8, PREFERRED], ids=str)
def test_a_nucleus_of_more_tokens_than_are_looked_at_is_not_proven(how: LogitsFormat) -> None:
    core = torch.zeros(1, 1, 200)
    assert not is_proven(core, UserLogits(torch.zeros_like(core)), how, EVEN, params_of("sampling", 0.9))


def test_numbers_that_are_none_prove_nothing() -> None:
    broken = UserLogits(torch.full((1, 1, LONG), float("nan")))
    for projection in PROJECTIONS:
        assert not is_proven(position({3: 9.0}), broken, UINT8, EVEN, params_of(projection))


def test_with_another_temperature_nothing_is_claimed_but_of_the_mode() -> None:
    core, user = position({3: 9.0, 9: 1.0}), NOTHING_OF_ITS_OWN
    warm = replace(params_of("sampling", 0.5), temperature=2.0)
    assert is_proven(core, user, UINT8, EVEN, params_of("sampling", 0.5))
    assert not is_proven(core, user, UINT8, EVEN, warm)
    assert is_proven(core, user, UINT8, EVEN, replace(warm, projection="greedy"))
