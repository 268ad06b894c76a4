"""The ±K simplex, and the projections onto tokens, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd2.algorithm.nucleus import nucleus, sample
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.sampler import project
from ssd2.algorithm.simplex import (
    check_ids,
    ids_to_simplex,
    tokens_to_simplex,
)
from ssd2.errors import InvalidParameter, TokenOutOfRange


def random_logits(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nucleus_by_brute_force(logits: np.ndarray, top_p: float) -> set[int]:
    """Take tokens from the most probable on until their mass reaches top_p."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    members: list[int] = []
    for token in sorted(range(len(logits)), key=lambda v: -probabilities[v]):
        members.append(token)
        if sum(probabilities[v] for v in members) >= top_p:
            break
    return set(members)


def members(row: Tensor) -> set[int]:
    return set((row > 0).nonzero().flatten().tolist())


def test_ids_become_plus_k_at_the_token_and_minus_k_elsewhere() -> None:
    simplex = ids_to_simplex(torch.tensor([[2, 0], [1, 1]]), 3, 5.0)
    minus, plus = -5.0, 5.0
    expected = [
        [[minus, minus, plus], [plus, minus, minus]],
        [[minus, plus, minus], [minus, plus, minus]],
    ]
    assert simplex.tolist() == expected
    assert simplex.dtype == torch.float32


@pytest.mark.parametrize("token_ids", [[0, 8], [-1, 3]])
def test_an_id_outside_the_vocabulary_is_refused(token_ids: list[int]) -> None:
    with pytest.raises(TokenOutOfRange, match="vocabulary of 8"):
        ids_to_simplex(torch.tensor(token_ids), 8)


def test_no_ids_are_in_range() -> None:
    check_ids(torch.empty(0, dtype=torch.int64), 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.99), st.sampled_from([0.3, 2.0, 10.0]))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(seed: int, top_p: float, scale: float) -> None:
    logits = random_logits(seed, 4, 23, scale=scale)
    kept = nucleus(logits, top_p)
    for row, row_kept in zip(logits.double().numpy(), kept, strict=True):
        assert members(row_kept) == nucleus_by_brute_force(row, top_p)


@pytest.mark.parametrize("step", [0.0, 0.25])
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
def test_in_a_large_vocabulary_it_is_what_a_stable_sort_of_all_gives(step: float, scale: float, top_p: float) -> None:
    """Also where it is larger than the entries that are looked at first, and where many are equal."""
    logits = random_logits(9, 4, 1000, scale=scale)
    logits = (logits / step).round() * step if step else logits
    descending, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    expected = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, descending.cumsum(-1) - descending < top_p)
    assert torch.equal(nucleus(logits, top_p), expected)


def test_the_nucleus_at_probabilities_worked_out_by_hand() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert members(nucleus(logits, 0.3)) == {1}
    assert members(nucleus(logits, 0.5)) == {1, 3}
    assert members(nucleus(logits, 0.75)) == {1, 2, 3}
    assert members(nucleus(logits, 1.0)) == {0, 1, 2, 3}


@pytest.mark.parametrize("top_p", [1e-9, 0.2, 1.0])
def test_the_mode_is_always_kept(top_p: float) -> None:
    logits = random_logits(1, 50, 40)
    assert bool(nucleus(logits, top_p).gather(-1, logits.argmax(-1, keepdim=True)).all())
    assert bool(nucleus(torch.zeros(1, 40), top_p).any())


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.01, float("nan")])
def test_a_mass_outside_its_range_is_refused(top_p: float) -> None:
    with pytest.raises(InvalidParameter, match="top_p"):
        nucleus(torch.zeros(1, 1, 4), top_p)
    with pytest.raises(InvalidParameter, match="top_p"):
        sample(torch.zeros(1, 1, 4), torch.ones(1, 1), top_p)


def test_tokens_become_plus_k_where_they_are_and_minus_k_elsewhere() -> None:
    rows = [ProjectedTokens((2, 0)), ProjectedTokens((0, 2, 1), (2, 1))]
    minus, plus = -4.0, 4.0
    expected = [
        [[minus, minus, plus], [plus, minus, minus]],
        [[plus, minus, plus], [minus, plus, minus]],
    ]
    assert tokens_to_simplex(rows, 2, 3, 4.0).tolist() == expected


def test_greedy_keeps_the_argmax_of_every_position() -> None:
    logits = random_logits(2, 3, 5, 17)
    projection = project(logits, DecodingParams(5, projection="greedy"), [], 0, 1)
    expected = [[int(np.argmax(row.numpy())) for row in rows] for rows in logits]
    assert projection.token_ids.tolist() == [list(row.token_ids) for row in projection.rows] == expected


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
def test_multi_hot_keeps_the_nucleus_of_every_position_and_commits_its_mode(top_p: float) -> None:
    logits = random_logits(3, 2, 6, 19)
    projection = project(logits, DecodingParams(6, projection="multi-hot", top_p=top_p), [], 0, 1)
    for tokens, row in zip(projection.rows, logits, strict=True):
        counts = tokens.counts or (1,) * 6
        ids = iter(tokens.token_ids)
        for position, count in enumerate(counts):
            kept = {next(ids) for _ in range(count)}
            assert kept == nucleus_by_brute_force(row[position].double().numpy(), top_p)
    assert torch.equal(projection.token_ids, logits.argmax(-1))


def test_sampling_picks_by_the_inverse_of_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(1, 6, 4)
    # The nucleus at 0.75 is {1, 2, 3} with 4/9, 2/9 and 3/9: borders at 0.444 and 0.667.
    uniform = torch.tensor([[1e-7, 0.44, 0.45, 0.66, 0.67, 1.0]])
    assert sample(logits, uniform, 0.75).tolist() == [[1, 1, 2, 2, 3, 3]]


def test_sampling_draws_the_nucleus_at_its_probabilities() -> None:
    probabilities = np.array([0.02, 0.31, 0.05, 0.22, 0.01, 0.17, 0.12, 0.10])
    kept = np.isin(np.arange(8), [1, 3, 5, 6])  # reaches 0.8 with 0.31 + 0.22 + 0.17 + 0.12 = 0.82
    draws = 20_000
    uniform = torch.rand(1, draws, generator=torch.Generator().manual_seed(5))
    logits = torch.tensor(probabilities).log().expand(1, draws, 8)
    tokens = sample(logits, 1 - uniform, 0.8).flatten().numpy()
    counts = np.bincount(tokens, minlength=8)
    assert counts[~kept].sum() == 0
    expected = draws * probabilities[kept] / probabilities[kept].sum()
    assert ((counts[kept] - expected) ** 2 / expected).sum() < 16.3  # 3 degrees of freedom, p = 0.001


def test_sampling_with_a_tiny_nucleus_is_greedy() -> None:
    logits, uniform = random_logits(6, 2, 7, 30), torch.rand(2, 7)
    assert torch.equal(sample(logits, uniform, 1e-6), logits.argmax(-1))


@pytest.mark.parametrize("draw", [2.0**-24, 1.0])
@pytest.mark.parametrize("vocab_size", [5, 5_000])
def test_the_extreme_draws_stay_in_the_nucleus(vocab_size: int, draw: float) -> None:
    logits = random_logits(7, 1, 100, vocab_size)
    logits[..., [0, -1]] = -1e4
    token_ids = sample(logits, torch.full((1, 100), draw), 0.99)
    assert bool(nucleus(logits, 0.99).gather(-1, token_ids[..., None]).all())
