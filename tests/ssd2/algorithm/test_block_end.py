"""The rule that ends a block, timestep by timestep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.block_end import BlockEnd, patience_of_the_core
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import ProjectedTokens

VOCAB = 6
Sets = Sequence[Sequence[int]]


def _tokens(*rows: Sets) -> tuple[ProjectedTokens, ...]:
    """Rows of positions of projected tokens."""
    return tuple(
        ProjectedTokens(tuple(token for ids in sets for token in ids), tuple(len(ids) for ids in sets)) for sets in rows
    )


def _ends(
    timesteps: Sequence[Sequence[Sets]], logits: Sequence[Tensor] | None = None, **params: object
) -> list[list[bool]]:
    """After each timestep, which rows are done."""
    shape = (len(timesteps[0]), len(timesteps[0][0]))
    end = BlockEnd(DecodingParams(block_size=shape[1], **params), torch.zeros(shape[0], dtype=torch.bool))
    done = []
    for step, rows in enumerate(timesteps):
        given = torch.zeros(*shape, VOCAB) if logits is None else logits[step]
        end.see(1, given, _tokens(*rows), torch.full(shape, step))
        done.append(end.is_done.tolist())
    return done


A, B = [[1], [2]], [[1], [3]]


@pytest.mark.parametrize(("patience", "ends_at"), [(1, 2), (2, 6), (3, 7)])
def test_a_block_ends_once_its_tokens_stay_the_same_for_patience_timesteps(patience: int, ends_at: int) -> None:
    done = _ends([[tokens] for tokens in (B, A, A, B, A, A, A, A)], patience=patience)
    assert done == [[step >= ends_at] for step in range(8)]


def test_without_patience_no_block_ends_early() -> None:
    assert _ends([[A]] * 30) == [[False]] * 30


def test_every_row_has_its_own_end() -> None:
    assert _ends([[A, A], [A, B], [B, B]], patience=1) == [[False, False], [True, False], [True, True]]


def test_sets_of_tokens_are_the_same_only_if_all_their_tokens_are() -> None:
    pair, more, other = [[1, 2], [3]], [[1, 2, 4], [3]], [[1, 4], [3]]
    assert _ends([[pair], [more], [pair], [other], [other]], patience=1) == [[False]] * 4 + [[True]]


def test_the_tokens_of_a_row_that_is_done_stay_those_of_its_end() -> None:
    end = BlockEnd(DecodingParams(block_size=2, patience=1), torch.tensor([False, False]))
    for step, rows in enumerate([(A, A), (A, B), (B, A), (A, A)]):
        end.see(1, torch.zeros(2, 2, VOCAB), _tokens(*rows), torch.full((2, 2), 10 + step))
        assert end.is_over == (step == 3)
    assert end.token_ids.tolist() == [[11, 11], [13, 13]]


def test_rows_that_are_answered_are_not_waited_for() -> None:
    end = BlockEnd(DecodingParams(block_size=2, patience=1), torch.tensor([False, True]))
    for rows in ((A, A), (A, B)):
        assert not end.is_over
        end.see(1, torch.zeros(2, 2, VOCAB), _tokens(*rows), torch.zeros(2, 2, dtype=torch.int64))
    assert end.is_over


def test_a_bound_lets_a_block_end_only_while_the_mean_entropy_of_the_mix_is_below_it() -> None:
    """One of two positions is certain, the other is between two tokens: log(2) / 2 nats in the mean."""
    logits = torch.full((1, 2, VOCAB), float("-inf"))
    logits[0, 0, 1] = logits[0, 1, 1] = logits[0, 1, 2] = 0.0
    for bound, is_done in ((0.34, False), (0.35, True)):
        assert _ends([[A]] * 2, [logits] * 2, patience=1, entropy_bound=bound)[-1] == [is_done]


def test_the_bound_is_asked_for_beside_patience_not_instead() -> None:
    certain = torch.zeros(1, 2, VOCAB)
    certain[..., 1] = 100.0
    assert _ends([[A], [B], [B]], [certain] * 3, patience=1, entropy_bound=0.5) == [[False], [False], [True]]


def _end_of_a_still_block(vocab_size: int, **params: object) -> int:
    """Timesteps of a block whose tokens are the same from the first one on."""
    decoding = DecodingParams(block_size=2, **params)
    end, rows = BlockEnd(decoding, torch.tensor([False])), (ProjectedTokens((1, 1)),)
    for step, t in enumerate(decoding.timesteps):
        end.see(t, torch.zeros(1, 2, vocab_size), rows, torch.ones(1, 2, dtype=torch.int64))
        if end.is_over:
            return step + 1
    return len(decoding.timesteps)


@pytest.mark.parametrize(
    ("vocab_size", "params", "timesteps"),
    [
        (1782, {"steps": 25, "stop": 0.4}, 3),  # the shipped pair: no timestep at which x_t can be read
        (1782, {"steps": 25, "stop": 0.0}, 20),  # the first at or below 303 are 280 and 240
        (512, {"steps": 42, "stop": 0.0}, 31),
        (50272, {"steps": 25, "stop": 0.0}, 21),
        (50272, {"steps": 25, "stop": 0.25}, 25),  # the stop is below the gate, and only one timestep too
        (1782, {"steps": 3, "stop": 0.0}, 3),
    ],
)
def test_patience_counts_only_where_the_other_models_tokens_can_be_read(
    vocab_size: int, params: dict[str, float], timesteps: int
) -> None:
    assert _end_of_a_still_block(vocab_size, patience=2, **params) == timesteps


def test_the_core_is_told_no_patience_that_never_counts() -> None:
    params = DecodingParams(block_size=2, patience=2, steps=3)
    assert patience_of_the_core(params, 1782) == 0
    assert patience_of_the_core(DecodingParams(block_size=2, patience=2, steps=25), 1782) == 2
    assert patience_of_the_core(DecodingParams(block_size=2, patience=2, steps=3, stop=0.4), 1782) == 2
