"""Penalties on tokens that an answer has already."""

from __future__ import annotations

import pytest
import torch

from ssd2.algorithm.penalties import Penalties
from ssd2.errors import InvalidParameter


def test_each_committed_token_is_penalised_by_its_count() -> None:
    """The formula of OpenAI's reference, over a vocabulary of 4."""
    mixed = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    answer = torch.tensor([[3, 1, 3]])
    penalised = Penalties(frequency=0.5, presence=0.25).apply(mixed, answer)
    assert penalised.tolist() == [[[1.0, 2.0 - 0.75, 3.0, 4.0 - 1.25]]]
    assert mixed.tolist() == [[[1.0, 2.0, 3.0, 4.0]]], "the models' own mix stays"
    assert Penalties(presence=-2.0).apply(mixed, answer).tolist() == [[[1.0, 4.0, 3.0, 6.0]]]


def test_without_penalties_or_tokens_nothing_changes() -> None:
    mixed = torch.tensor([[[1.0, 2.0]]])
    assert Penalties().apply(mixed, torch.tensor([[1]])) is mixed
    assert Penalties(1.0, 1.0).apply(mixed, torch.empty(1, 0, dtype=torch.int64)) is mixed


@pytest.mark.parametrize("name", ["frequency", "presence"])
def test_blocks_of_several_tokens_take_none_and_the_parameter_is_named(name: str) -> None:
    Penalties().check(8)
    Penalties(**{name: 1.0}).check(1)
    with pytest.raises(InvalidParameter) as refused:
        Penalties(**{name: 1.0}).check(8)
    assert refused.value.parameter == f"{name}_penalty"
