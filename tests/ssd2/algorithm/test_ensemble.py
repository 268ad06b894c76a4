"""The mix of §3.2 against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.ensemble import mix

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
    mixed = mix(CORE, USER, WITHOUT, lambda_user=0.25, alpha=2.0)
    assert mixed.tolist() == [[[0.75 + 7.5 - 2.0, 1.5 + 0.0 - 2.0, 2.25 - 7.5 - 0.0]]]


def test_without_contrast_it_is_a_weighted_average() -> None:
    assert mix(CORE, USER, None, lambda_user=0.5, alpha=0.0).tolist() == [[[5.5, 1.0, -3.5]]]


@pytest.mark.parametrize("absent", [None, UNREAD])
def test_terms_of_weight_0_are_not_read(absent: Tensor | None) -> None:
    assert torch.equal(mix(CORE, absent, absent, lambda_user=0.0, alpha=1.0), CORE)
    assert torch.equal(mix(absent, USER, WITHOUT, lambda_user=1.0, alpha=1.0), 2 * USER - WITHOUT)
    assert torch.equal(mix(absent, USER, absent, lambda_user=1.0, alpha=0.0), USER)


@pytest.mark.parametrize(
    ("core", "user", "without"), [(None, USER, WITHOUT), (CORE, None, WITHOUT), (CORE, USER, None)]
)
def test_a_term_that_counts_must_be_there(core: Tensor | None, user: Tensor | None, without: Tensor | None) -> None:
    with pytest.raises(ValueError, match="must be given"):
        mix(core, user, without, lambda_user=0.3, alpha=1.0)


def test_normalised_mixing_is_over_log_probabilities() -> None:
    log_z_core = math.log(math.e + math.e**2 + math.e**3)
    log_z_user = math.log(math.e**10 + 1 + math.e**-10)
    expected = [0.6 * (c - log_z_core) + 0.4 * (u - log_z_user) for c, u in zip((1, 2, 3), (10, 0, -10), strict=True)]
    mixed = mix(CORE, USER, None, lambda_user=0.4, alpha=0.0, normalise=True)
    torch.testing.assert_close(mixed, torch.tensor([[expected]]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_what_is_added_to_a_whole_row_changes_no_probability(normalise: bool) -> None:
    probabilities = [
        mix(CORE + shift, USER, WITHOUT, lambda_user=0.3, alpha=1.0, normalise=normalise).softmax(-1)
        for shift in (0.0, -25.0)
    ]
    torch.testing.assert_close(probabilities[0], probabilities[1])


def test_half_precision_logits_are_mixed_in_float32() -> None:
    core, user = torch.tensor([[[2049.0, 1.0]]]), torch.tensor([[[1.0, 0.5]]])
    mixed = mix(core.half(), user.half(), None, lambda_user=0.5, alpha=0.0)
    assert mixed.dtype == torch.float32
    assert mixed.tolist() == [[[(2048.0 + 1.0) / 2, 0.75]]]
