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
