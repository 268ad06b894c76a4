"""Which answers are computed next, and what becomes of guesses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_server.catalogue.engine_messages import Advance, Begin, End
from core_server.engine.scheduler import Batch, Result, Scheduler
from ssd2.algorithm.block_end import BlockEnd, patience_of_the_core
from ssd2.algorithm.params import DecodingParams
from ssd2.algorithm.projection import ProjectedTokens, StepPosition
from ssd2.models.lane import Row
from tests.core_server.engine.test_lanes import VOCAB, request

GREEDY = ProjectedTokens((9, 9, 9, 9))
TOKENS = ProjectedTokens((3, 4, 5, 6))
OTHERS = ProjectedTokens((7, 7, 7, 7))


class FakeLane:
    """A lane whose rows are of one kind if their blocks are of one length."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []

    def kind(self, row: Row) -> Hashable:
        return row.request.block_size

    def logits(self, rows: Sequence[Row]) -> Tensor:
        raise NotImplementedError

    def is_long(self, row: Row, *, beside: bool) -> bool:
        return False

    def read(self, row: Row, *, beside: bool) -> None:
        raise NotImplementedError

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        raise NotImplementedError

    def forget(self, slot: int) -> None:
        self.forgotten.append(slot)


@pytest.fixture
def lane() -> FakeLane:
    return FakeLane()


@pytest.fixture
def scheduler(lane: FakeLane) -> Scheduler:
    return Scheduler({"a": lane, "b": FakeLane()}, slots=4)


def begin(session: int, model: str = "a", **changes: Any) -> Begin:
    return Begin(session, model, request(**changes))


def compute(batch: Batch | None) -> list[tuple[int, StepPosition]]:
    """What an engine does with a batch, but for the logits; which answers and timesteps it was."""
    if batch is None:
        return []
    for answer, row in zip(batch.answers, batch.rows, strict=True):
        answer.waiting = None
        answer.results.append(Result(row.state, GREEDY, torch.full((4, 16), float(row.state.at.number))))
    return [(answer.number, row.state.at) for answer, row in zip(batch.answers, batch.rows, strict=True)]


def advance(scheduler: Scheduler, session: int, tokens: ProjectedTokens, *, is_commit: bool = False) -> None:
    scheduler.handle(Advance(session, tokens, is_commit))


def test_all_that_waits_is_one_batch_whatever_its_timestep(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0))
    compute(scheduler.next_batch())
    advance(scheduler, 0, TOKENS)
    scheduler.handle(begin(1))
    scheduler.handle(begin(2))
    assert compute(scheduler.next_batch()) == [
        (0, StepPosition(1, 0, 1)),
        (1, StepPosition(0, 0, 0)),
        (2, StepPosition(0, 0, 0)),
    ]
    assert scheduler.next_batch() is None, "they all wait for their agents"


def test_what_cannot_be_one_batch_follows_in_the_order_of_waiting(scheduler: Scheduler) -> None:
    for number, opening in enumerate([begin(0), begin(1, model="b"), begin(2, block_size=8), begin(3)]):
        assert scheduler.slots_used == number
        scheduler.handle(opening)
    found = [[number for number, _ in compute(scheduler.next_batch())] for _ in range(3)]
    assert found == [[0, 3], [1], [2]]


def test_those_that_wait_longest_come_first_where_a_batch_is_too_small(scheduler: Scheduler) -> None:
    for number in range(3):
        scheduler.handle(begin(number))
    compute(scheduler.next_batch())
    for number in (2, 0, 1):
        advance(scheduler, number, TOKENS)
    scheduler.max_batch = 2
    assert [[number for number, _ in compute(scheduler.next_batch())] for _ in range(2)] == [[2, 0], [1]]


def test_an_answer_that_ends_gives_its_slot_back_and_is_forgotten(scheduler: Scheduler, lane: FakeLane) -> None:
    for number in range(4):
        scheduler.handle(begin(number))
    slot = scheduler.next_batch().rows[1].slot  # type: ignore[union-attr]
    scheduler.handle(End(1))
    assert (lane.forgotten, scheduler.slots_used) == ([slot], 3)
    scheduler.handle(End(1))
    advance(scheduler, 1, TOKENS)
    assert scheduler.slots_used == 3, "what comes for it afterwards changes nothing"
    scheduler.handle(begin(4))
    assert sorted(number for number, _ in compute(scheduler.next_batch())) == [0, 2, 3, 4]


def of_one(scheduler: Scheduler) -> tuple[StepPosition, ProjectedTokens | None, tuple[int, ...], bool] | None:
    """What is computed next of the only answer: where, on which projection, behind which tokens, and if on a guess."""
    batch = scheduler.next_batch()
    if batch is None:
        return None
    compute(batch)
    (row,) = batch.rows
    return row.state.at, row.state.projected, row.state.answer_ids, batch.is_guessed


def test_without_speculation_nothing_is_guessed(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0))
    assert of_one(scheduler) == (StepPosition(0, 0, 0), None, (), False)
    assert of_one(scheduler) is None


def test_a_guess_is_the_models_own_choice_first_and_the_last_projection_then(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=1))
    of_one(scheduler)
    assert of_one(scheduler) == (StepPosition(1, 0, 1), GREEDY, (), True)
    assert of_one(scheduler) is None, "no further ahead than asked for"
    advance(scheduler, 0, TOKENS)
    assert of_one(scheduler) == (StepPosition(1, 0, 1), TOKENS, (), False), "the guess was wrong"
    assert of_one(scheduler) == (StepPosition(2, 0, 2), TOKENS, (), True)


def test_a_right_guess_is_not_computed_again(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=2))
    of_one(scheduler)
    advance(scheduler, 0, TOKENS)
    of_one(scheduler)
    assert of_one(scheduler) == (StepPosition(2, 0, 2), TOKENS, (), True)
    assert of_one(scheduler) == (StepPosition(3, 1, 0), None, TOKENS.token_ids, True), "the last one is a commit"
    advance(scheduler, 0, TOKENS)
    assert of_one(scheduler) == (StepPosition(4, 1, 1), GREEDY, TOKENS.token_ids, True)
    advance(scheduler, 0, TOKENS, is_commit=True)
    advance(scheduler, 0, GREEDY)
    assert of_one(scheduler) == (StepPosition(5, 1, 2), GREEDY, TOKENS.token_ids, True)


def test_a_wrong_guess_takes_all_that_was_built_on_it_along(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=2))
    compute(scheduler.next_batch())
    advance(scheduler, 0, TOKENS)
    for _ in range(3):
        compute(scheduler.next_batch())
    advance(scheduler, 0, OTHERS)
    batch = scheduler.next_batch()
    assert batch
    (row,) = batch.rows
    assert (row.state.at, row.state.projected, batch.is_guessed) == (StepPosition(2, 0, 2), OTHERS, False)
    assert row.state.fed_back is not None
    assert row.state.fed_back[0, 0] == 1, "the model's own prediction is that of the timestep before"


def test_an_early_commit_makes_a_guess_at_the_next_timestep_wrong(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=1))
    of_one(scheduler)
    of_one(scheduler)
    advance(scheduler, 0, GREEDY, is_commit=True)
    assert of_one(scheduler) == (StepPosition(1, 1, 0), None, GREEDY.token_ids, False)


def test_the_end_of_the_agents_patience_is_guessed_as_a_commit(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=9, timesteps=(900, 800, 700, 600), max_blocks=2, patience=2))
    compute(scheduler.next_batch())
    found = []
    while batch := scheduler.next_batch():
        found += [at for _, at in compute(batch)]
    rest = [StepPosition(1, 0, 1), StepPosition(2, 0, 2), StepPosition(3, 1, 0), StepPosition(4, 1, 1)]
    assert found == [*rest, StepPosition(5, 1, 2)], "and nothing follows the last block's end"
    for is_commit in (False, False, True):
        advance(scheduler, 0, GREEDY, is_commit=is_commit)
        assert scheduler.next_batch() is None, "all of it was right"
    advance(scheduler, 0, TOKENS)
    assert of_one(scheduler) == (StepPosition(4, 1, 1), TOKENS, GREEDY.token_ids, False)


def test_patience_counts_from_the_last_change(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=1, timesteps=(900, 800, 700, 600, 500), patience=2))
    of_one(scheduler)
    for tokens in (TOKENS, TOKENS, OTHERS):
        advance(scheduler, 0, tokens)
        of_one(scheduler)
    found = of_one(scheduler)
    assert found
    assert found[0] == StepPosition(4, 0, 4), "one unchanged projection would not end it"


def test_nothing_is_guessed_behind_the_last_block(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=9, max_blocks=1, timesteps=(900, 500)))
    assert [of_one(scheduler) is not None for _ in range(3)] == [True, True, False]


def test_guesses_wait_for_everything_that_is_certain(scheduler: Scheduler) -> None:
    scheduler.handle(begin(0, speculation=3))
    compute(scheduler.next_batch())
    scheduler.handle(begin(1))
    batch = scheduler.next_batch()
    assert batch
    assert [answer.number for answer in batch.answers] == [1]
    assert not batch.is_guessed


def test_a_multi_hot_projection_is_no_guess_at_the_next(scheduler: Scheduler) -> None:
    """It would have to be named token by token; the model's own choice stands in."""
    scheduler.handle(begin(0, speculation=1))
    of_one(scheduler)
    advance(scheduler, 0, ProjectedTokens((1, 2, 3, 4, 5), (2, 1, 1, 1)))
    of_one(scheduler)
    found = of_one(scheduler)
    assert found
    assert found[1] == GREEDY


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(2, 30),
    stop=st.sampled_from([0.0, 0.2, 0.35, 0.4, 0.5]),
    patience=st.integers(1, 3),
    changes=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_the_core_guesses_a_commit_where_the_agents_patience_ends(
    steps: int, stop: float, patience: int, changes: list[bool]
) -> None:
    """Both apply one rule to what both see: the projections, the timesteps and V."""
    params = DecodingParams(block_size=4, steps=steps, stop=stop, patience=patience)
    end = BlockEnd(params, torch.tensor([False]))
    core = Scheduler({"a": FakeLane()}, slots=1)
    told = patience_of_the_core(params, VOCAB)
    core.handle(begin(0, speculation=1, timesteps=params.timesteps, patience=told))
    compute(core.next_batch())
    projected, at_last = TOKENS, steps - 1
    for step, t in enumerate(params.timesteps):
        if changes[step]:
            projected = OTHERS if projected == TOKENS else TOKENS
        ids = torch.tensor([projected.token_ids])
        end.see(t, torch.zeros(1, 4, VOCAB), (projected,), ids)
        is_guessed_commit = len(core._answers[0].results) > 1 and core._answers[0].results[1].state.at.block == 1
        guessed_right = step > 0 and not changes[step]  # the guess is the projection before
        if guessed_right:
            assert is_guessed_commit == (end.is_over or step == at_last)
        if end.is_over or step == at_last:
            return
        advance(core, 0, projected)
        while batch := core.next_batch():
            compute(batch)
