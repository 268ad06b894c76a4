"""The mask of App. A."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd2.training.mask import delta


def test_the_worked_example_of_the_paper() -> None:
    assert delta(1, 2, 2).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1],
        [1, 1, 1, 0, 0, 1, 1],
    ]


def names(prompt_length: int, blocks: int, block_size: int) -> list[tuple[str, int]]:
    """What stands in every place of the sequence: a clean token or a noised one, by its position in the text."""
    clean = prompt_length + (blocks - 1) * block_size
    noised = range(prompt_length, prompt_length + blocks * block_size)
    return [("clean", position) for position in range(clean)] + [("noised", position) for position in noised]


def sees(row: tuple[str, int], column: tuple[str, int], prompt_length: int, block_size: int) -> bool:
    """App. A in words: clean tokens are read causally; a noised one sees the clean tokens before its
    block, and the noised ones of its own block in both directions.
    """
    (row_kind, i), (column_kind, j) = row, column
    if row_kind == "clean":
        return column_kind == "clean" and j <= i
    block = (i - prompt_length) // block_size
    if column_kind == "clean":
        return j < prompt_length + block * block_size
    return (j - prompt_length) // block_size == block


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5))
def test_every_entry_is_as_the_appendix_says(prompt_length: int, blocks: int, block_size: int) -> None:
    mask = delta(prompt_length, blocks, block_size)
    tokens = names(prompt_length, blocks, block_size)
    assert mask.shape == (len(tokens), len(tokens))
    assert len(tokens) == prompt_length + (2 * blocks - 1) * block_size
    for i, j in product(range(len(tokens)), repeat=2):
        assert bool(mask[i, j]) == sees(tokens[i], tokens[j], prompt_length, block_size), (i, j)


@pytest.mark.parametrize("blocks", [1, 3])
def test_no_block_sees_its_own_clean_tokens_or_those_behind_it(blocks: int) -> None:
    mask, context = delta(2, blocks, 3), 2 + (blocks - 1) * 3
    for k in range(blocks):
        own_rows = mask[context + 3 * k : context + 3 * (k + 1)]
        assert not own_rows[:, 2 + 3 * k : context].any()


def test_the_mask_is_made_of_booleans() -> None:
    assert delta(1, 1, 1).dtype == torch.bool
