"""Next tokens are Algorithm 2 with L = 1 and one timestep, without noise and simplexes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.next_token import NextTokenSampler
from ssd2.algorithm.params import PROJECTIONS, DecodingParams, Seeds
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.sampler import Sampler, SamplerKind, SeenBlock
from ssd2.algorithm.simplex_sampler import SimplexSampler

VOCAB, EOS = 13, 2
SEEDS = [Seeds(100 + row, 200 + row) for row in range(3)]


def logits_behind(answers: Sequence[Sequence[int]]) -> Tensor:
    """A fake model: logits of the next token of each row, [B, 1, V], a function of its tokens alone."""
    bias = torch.cos(torch.arange(VOCAB * VOCAB).float()).view(VOCAB, VOCAB)
    return torch.stack([2 * bias[sum(answer) % VOCAB] + bias[len(answer) % VOCAB] for answer in answers])[:, None]


def decoded(sampler: Sampler) -> tuple[list[list[int]], int]:
    """Decode to the end; the answers, and how often the model was asked."""
    asked = 0
    while view := sampler.due:
        asked += 1
        sampler.step(logits_behind(view.answer_ids.tolist()))
    return sampler.answers, asked


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7}, {"top_p": 1.0}, {"patience": 2}], ids=str)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_tokens_are_those_of_algorithm_2(projection: str, changes: dict[str, float]) -> None:
    params = DecodingParams(1, max_tokens=20, steps=1, **{"projection": projection, "top_p": 0.8, **changes})
    ours, theirs = (decoded(kind(params, SEEDS, stop_ids=(EOS,))) for kind in (NextTokenSampler, SimplexSampler))
    assert ours == theirs
    assert len({len(answer) for answer in ours[0]}) > 1 or projection != "sampling", "no row ended before another"


@pytest.mark.parametrize("kind", [NextTokenSampler, SimplexSampler])
def test_any_stop_id_ends_an_answer(kind: SamplerKind) -> None:
    params = DecodingParams(1, max_tokens=20, steps=1, top_p=0.8)
    endless, _ = decoded(kind(params, SEEDS, stop_ids=()))
    ends = (endless[0][2], endless[1][4])  # drawn by different rows
    sampler = kind(params, SEEDS, stop_ids=ends)
    answers, _ = decoded(sampler)
    assert answers == [row[: min((row.index(end) for end in ends if end in row), default=20)] for row in endless]
    assert len(set(map(len, answers))) > 1


def test_the_model_is_asked_once_a_token_however_many_timesteps_there_are() -> None:
    params = DecodingParams(1, max_tokens=20, steps=4, top_p=0.8)
    ours, theirs = (decoded(kind(params, SEEDS, stop_ids=(EOS,))) for kind in (NextTokenSampler, SimplexSampler))
    assert ours[0] == theirs[0]
    assert 4 * ours[1] == theirs[1]


def test_an_answer_without_eos_ends_at_max_tokens() -> None:
    sampler = NextTokenSampler(DecodingParams(1, max_tokens=5, steps=1), SEEDS, stop_ids=())
    answers, asked = decoded(sampler)
    assert [len(answer) for answer in answers] == [5] * 3
    assert asked == 5
    with pytest.raises(ValueError, match="no logits are due"):
        sampler.step(logits_behind(answers))


@pytest.mark.parametrize("before", [None, ProjectedTokens((9,))])
def test_a_core_guesses_its_own_token_and_a_commit(before: ProjectedTokens | None) -> None:
    guess = NextTokenSampler.guess(SeenBlock(ProjectedTokens((7,)), before, ends_if_same=False, is_last=False))
    assert (guess.projected, guess.is_commit) == (ProjectedTokens((7,)), True)


@pytest.mark.parametrize(
    ("before", "ends_if_same", "is_last", "guessed", "is_commit"),
    [
        (None, True, False, (7, 7), False),
        ((9, 8), False, False, (9, 8), False),
        ((9, 8), True, False, (9, 8), True),
        ((9, 8), False, True, (9, 8), True),
        (None, False, True, (7, 7), True),
    ],
)
def test_with_algorithm_2_it_guesses_that_nothing_changes(
    before: tuple[int, ...] | None, ends_if_same: bool, is_last: bool, guessed: tuple[int, ...], is_commit: bool
) -> None:
    seen = SeenBlock(ProjectedTokens((7, 7)), ProjectedTokens(before) if before else None, ends_if_same, is_last)
    guess = SimplexSampler.guess(seen)
    assert (guess.projected.token_ids, guess.is_commit) == (guessed, is_commit)


def test_several_tokens_a_position_are_not_guessed_again() -> None:
    before = ProjectedTokens((9, 10, 8), (2, 1))
    guess = SimplexSampler.guess(SeenBlock(ProjectedTokens((7, 7)), before, ends_if_same=True, is_last=False))
    assert (guess.projected.token_ids, guess.is_commit) == ((7, 7), False)
