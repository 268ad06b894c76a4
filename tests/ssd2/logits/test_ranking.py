"""The first few of many values, in an order that leaves nothing open."""

from __future__ import annotations

import pytest
import torch

from ssd2.logits.ranking import ranked


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_it_is_the_beginning_of_a_stable_sort(largest: bool, step: float, count: int) -> None:
    values = 2 * torch.randn(3, 4, 60, generator=torch.Generator().manual_seed(0)).abs()
    values = (values / step).round() * step if step else values
    values[..., 5], values[..., 6] = torch.inf, 0.0
    order = values.sort(dim=-1, descending=largest, stable=True).indices
    assert torch.equal(ranked(values, count, largest=largest), order[..., :count])


@pytest.mark.parametrize("step", [0.0, 0.25, 1.0, 100.0])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("vocab_size", [5, 300, 6000, 50_000])
def test_a_row_by_itself_is_ranked_as_a_stable_sort_would(vocab_size: int, largest: bool, step: float) -> None:
    """Most entries of a large row are left out at once, also where many or all are equal."""
    values = torch.randn(vocab_size, generator=torch.Generator().manual_seed(4)).abs()
    values = (values / step).round() * step if step else values
    order = values.sort(descending=largest, stable=True).indices
    for count in {1, min(64, vocab_size), max(1, vocab_size // 32), vocab_size // 2, vocab_size}:
        assert torch.equal(ranked(values[None, None], count, largest=largest)[0, 0], order[:count])
