"""The mix of §3.2 against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.collaboration import Mixer, UserLogits
from ssd2.algorithm.ensemble import (
    LAMBDA_MAX,
    BlockChanges,
    difference,
    divergent_lambda,
    weighted_average,
    weighted_sum,
)
from ssd2.algorithm.params import CollaborationParams

CORE = torch.tensor([[[1.0, 2.0, 3.0]]])
USER = torch.tensor([[[10.0, 0.0, -10.0]]])
WITHOUT = torch.tensor([[[4.0, 4.0, 0.0]]])


class Unread(Tensor):
    """Logits that nothing may look at."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> object:
        raise AssertionError("a term of weight 0 was read")


UNREAD = torch.zeros(1, 1, 3).as_subclass(Unread)


def test_the_three_terms_have_the_weights_of_the_paper() -> None:
    # 0.75·core + 0.25·(1 + 2)·user - 0.25·2·without
    mixed = weighted_sum(CORE, USER, WITHOUT, weighted_average(0.25, 2.0))
    assert mixed.tolist() == [[[0.75 + 7.5 - 2.0, 1.5 + 0.0 - 2.0, 2.25 - 7.5 - 0.0]]]


def test_without_contrast_it_is_a_weighted_average() -> None:
    assert weighted_sum(CORE, USER, None, weighted_average(0.5, 0.0)).tolist() == [[[5.5, 1.0, -3.5]]]


@pytest.mark.parametrize("absent", [None, UNREAD])
def test_terms_of_weight_0_are_not_read(absent: Tensor | None) -> None:
    assert torch.equal(weighted_sum(CORE, absent, absent, weighted_average(0.0, 1.0)), CORE)
    assert torch.equal(weighted_sum(absent, USER, WITHOUT, weighted_average(1.0, 1.0)), 2 * USER - WITHOUT)
    assert torch.equal(weighted_sum(absent, USER, absent, weighted_average(1.0, 0.0)), USER)


@pytest.mark.parametrize(
    ("core", "user", "without"), [(None, USER, WITHOUT), (CORE, None, WITHOUT), (CORE, USER, None)]
)
def test_a_term_that_counts_must_be_there(core: Tensor | None, user: Tensor | None, without: Tensor | None) -> None:
    with pytest.raises(ValueError, match="must be given"):
        weighted_sum(core, user, without, weighted_average(0.3, 1.0))


def test_normalised_mixing_is_over_log_probabilities() -> None:
    log_z_core = math.log(math.e + math.e**2 + math.e**3)
    log_z_user = math.log(math.e**10 + 1 + math.e**-10)
    expected = [0.6 * (c - log_z_core) + 0.4 * (u - log_z_user) for c, u in zip((1, 2, 3), (10, 0, -10), strict=True)]
    mixed = weighted_sum(CORE, USER, None, weighted_average(0.4, 0.0), normalise=True)
    torch.testing.assert_close(mixed, torch.tensor([[expected]]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_what_is_added_to_a_whole_row_changes_no_probability(normalise: bool) -> None:
    probabilities = [
        weighted_sum(CORE + shift, USER, WITHOUT, weighted_average(0.3, 1.0), normalise=normalise).softmax(-1)
        for shift in (0.0, -25.0)
    ]
    torch.testing.assert_close(probabilities[0], probabilities[1])


def test_half_precision_logits_are_mixed_in_float32() -> None:
    core, user = torch.tensor([[[2049.0, 1.0]]]), torch.tensor([[[1.0, 0.5]]])
    mixed = weighted_sum(core.half(), user.half(), None, weighted_average(0.5, 0.0))
    assert mixed.dtype == torch.float32
    assert mixed.tolist() == [[[(2048.0 + 1.0) / 2, 0.75]]]


def test_the_difference_corrects_the_core_by_what_the_documents_change() -> None:
    mixed = weighted_sum(CORE, USER, WITHOUT, difference(2.0))
    assert mixed.tolist() == [[[1.0 + 2 * 6, 2.0 - 2 * 4, 3.0 - 2 * 10]]]
    assert torch.equal(weighted_sum(CORE, None, None, difference(0.0)), CORE)


def _lambda_of(user: list[float], without: list[float]) -> float:
    return float(divergent_lambda(torch.tensor([[user]]).log(), torch.tensor([[without]]).log()))


def test_lambda_grows_with_the_root_of_the_divergence_of_the_passes_in_bits() -> None:
    # (0.5, 0.5) against (1, 0): m = (0.75, 0.25), 0.5·(0.5·log2(2/3) + 0.5·log2 2) + 0.5·log2(4/3) bits
    bits = 0.5 * (0.5 * math.log2(2 / 3) + 0.5) + 0.5 * math.log2(4 / 3)
    assert _lambda_of([0.5, 0.5], [1.0, 0.0]) == pytest.approx(LAMBDA_MAX * math.sqrt(bits), abs=1e-6)
    assert _lambda_of([0.0, 1.0], [1.0, 0.0]) == pytest.approx(LAMBDA_MAX)


def test_lambda_is_0_where_the_documents_change_nothing_even_of_many_unlikely_tokens() -> None:
    logits = 8 * torch.randn(1, 3, 50_000, generator=torch.Generator().manual_seed(1))
    assert divergent_lambda(logits, logits.clone()).tolist() == [[[0.0]] * 3]
    assert float(divergent_lambda(logits, logits + 300).max()) < 1e-4, "a shift changes no probability"


def test_lambda_is_found_for_each_position_from_finite_numbers() -> None:
    user, without = torch.zeros(2, 1, 3, 4)
    user[0, 1, 2], user[0, 2, 3], without[0, 2, 0] = 2.0, 1e4, 1e4
    user[0, 0, 3] = without[0, 0, 3] = -math.inf
    (nothing, some, everything) = divergent_lambda(user, without)[0, :, 0].tolist()
    assert (nothing, everything) == (0.0, pytest.approx(LAMBDA_MAX))
    assert 0.1 < some < 0.8


def test_a_block_remembers_what_the_documents_changed_and_the_next_one_does_not() -> None:
    changes = BlockChanges()
    divergences = [torch.tensor([[[each], [0.9 - each]]]) for each in (0.8, 0.2, 0.2, 0.6)]
    remembered = [changes.remembered(one, step).flatten().tolist() for step, one in enumerate(divergences)]
    expected = [[0.8, 0.1], [0.5, 0.7], [0.4, 0.7], [0.6, 0.45]]
    assert remembered == [pytest.approx(one) for one in expected]
    assert changes.remembered(divergences[1], 0).flatten().tolist() == pytest.approx([0.2, 0.7])


def test_a_fact_of_the_documents_stays_when_both_passes_read_it_in_the_block() -> None:
    """The core, which has never seen the fact, is for another token."""
    fact, other, neither = torch.eye(3) * 8
    core, sure, unsure = (row.expand(1, 1, 3) for row in (other / 4, fact, neither * 0))
    mixer, drawn, read = Mixer(CollaborationParams("auto", 1.0)), UserLogits(sure, unsure), UserLogits(sure, sure)
    choices = [mixer.mix(core, terms, step).logits.argmax(-1).item() for step, terms in enumerate((drawn, read, read))]
    assert choices == [0, 0, 0]
    assert mixer.mix(core, read, 0).logits.argmax(-1).item() == 1, "of the next block nothing is remembered"


def test_a_lambda_of_each_position_weighs_that_position_only() -> None:
    lambdas = torch.tensor([[[0.25], [0.5]]])
    core, user, without = (term.expand(1, 2, 3) for term in (CORE, USER, WITHOUT))
    mixed = weighted_sum(core, user, without, weighted_average(lambdas, 2.0))
    one_by_one = [weighted_sum(CORE, USER, WITHOUT, weighted_average(float(x), 2.0)) for x in lambdas.flatten()]
    assert torch.equal(mixed, torch.cat(one_by_one, 1))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_normalised_or_not_a_mix_by_position_has_the_same_probabilities(alpha: float) -> None:
    core, user, without = 5 * torch.randn(3, 2, 4, 30, generator=torch.Generator().manual_seed(2))
    weights = weighted_average(divergent_lambda(user, without), alpha)
    raw, normalised = (weighted_sum(core, user, without, weights, normalise=how) for how in (False, True))
    torch.testing.assert_close(raw.softmax(-1), normalised.softmax(-1))
