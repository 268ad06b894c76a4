"""Contexts in slots: what is kept, copied or dropped must not show in the logits of the blocks behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import plain_logits, tiny_model
from torch import Tensor

from ssd2.models.context import Context
from ssd2.models.context_pool import ContextPool
from ssd2.models.ssd2 import SSD2

LONG = (1, *range(3, 23))
X_T = 5 * torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["quantised", "none"])
def model(request: pytest.FixtureRequest) -> SSD2:
    return tiny_model(3, context_timestep=request.param)


def logits_by_slot(pool: ContextPool, slots: list[int], timesteps: list[int]) -> Tensor:
    return pool.denoise(slots, X_T[: len(slots)], None, torch.tensor(timesteps))


def context_of(
    model: SSD2,
    token_ids: tuple[int, ...],
    timestep: int,
    first_position: int = 0,
    *,
    answer_tokens: int = 0,
    scope: str | None = "one",
) -> Context:
    """A prompt, unless its last tokens are an answer's."""
    prompt_tokens = len(token_ids) - answer_tokens
    return Context(token_ids, first_position, model.config.quantised(timestep), prompt_tokens, scope)


def assert_as_written(model: SSD2, found: Tensor, row: int, token_ids: tuple[int, ...], t: int, first: int = 0) -> None:
    expected = plain_logits(model, torch.tensor(token_ids), first, X_T[row], None, t)
    torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def encoded(pool: ContextPool, model: SSD2, contexts: dict[int, Context], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tokens of context the model is run on."""
    tokens = 0
    embed = model.embed_context

    def counted(token_ids: Tensor, positions: Tensor, t: Tensor) -> Tensor:
        nonlocal tokens
        tokens += token_ids.numel()
        return embed(token_ids, positions, t)

    with monkeypatch.context() as patch:
        patch.setattr(model, "embed_context", counted)
        pool.hold(contexts)
    return tokens


def test_contexts_of_any_length_and_timestep_are_one_batch(model: SSD2) -> None:
    pool = ContextPool(model, slots=4, max_tokens=48)
    contexts = {3: (LONG, 1000, 0), 0: ((1, 7), 430, 9), 2: ((1, *range(9, 20)), 777, 3)}
    pool.hold({slot: context_of(model, *which) for slot, which in contexts.items()})
    found = logits_by_slot(pool, list(contexts), [t for _, t, _ in contexts.values()])
    for row, (token_ids, t, first) in enumerate(contexts.values()):
        assert_as_written(model, found, row, token_ids, t, first)


def test_a_context_grows_behind_blocks_that_were_denoised(model: SSD2) -> None:
    """What a block leaves in its slot is written over by the tokens that were committed."""
    pool = ContextPool(model, slots=2, max_tokens=48)
    token_ids = (1, 5, 9)
    for block in range(3):
        pool.hold({0: context_of(model, token_ids, 620), 1: context_of(model, LONG, 620)})
        found = logits_by_slot(pool, [1, 0], [620, 620])
        assert_as_written(model, found, 0, LONG, 620)
        assert_as_written(model, found, 1, token_ids, 620)
        token_ids = (*token_ids, *range(10 + block, 14 + block))


def test_a_slot_is_as_new_for_the_next_context(model: SSD2) -> None:
    pool = ContextPool(model, slots=1, max_tokens=48)
    for token_ids in (LONG, (1, 30, 4), (1, 30, 5, 6), LONG[:12]):
        pool.forget(0)
        pool.hold({0: context_of(model, token_ids, 500)})
        assert_as_written(model, logits_by_slot(pool, [0], [500]), 0, token_ids, 500)


def test_a_context_that_went_another_way_keeps_what_is_the_same(model: SSD2, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ContextPool(model, slots=1, max_tokens=48)
    pool.hold({0: context_of(model, LONG, 500)})
    other = (*LONG[:10], 30, 31)
    assert encoded(pool, model, {0: context_of(model, other, 500)}, monkeypatch) == 2
    assert_as_written(model, logits_by_slot(pool, [0], [500]), 0, other, 500)


def test_what_contexts_begin_with_is_encoded_once(model: SSD2, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ContextPool(model, slots=4, max_tokens=48)
    contexts = {slot: context_of(model, (*LONG, 23 + slot), 500) for slot in range(3)}
    assert encoded(pool, model, contexts, monkeypatch) == len(LONG) + 1 + 2
    assert encoded(pool, model, {3: context_of(model, (*LONG, 30), 500)}, monkeypatch) == 1
    found = logits_by_slot(pool, [0, 1, 2, 3], [500] * 4)
    for row, last in enumerate((23, 24, 25, 30)):
        assert_as_written(model, found, row, (*LONG, last), 500)


def test_what_is_at_another_position_or_timestep_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(3, context_timestep="quantised")
    pool = ContextPool(model, slots=3, max_tokens=48)
    pool.hold({0: context_of(model, LONG, 500)})
    elsewhere = {1: context_of(model, LONG, 500, first_position=2), 2: context_of(model, LONG, 555)}
    assert encoded(pool, model, elsewhere, monkeypatch) == 2 * len(LONG)
    found = logits_by_slot(pool, [1, 2], [500, 555])
    assert_as_written(model, found, 0, LONG, 500, first=2)
    assert_as_written(model, found, 1, LONG, 555)


def test_what_was_forgotten_is_encoded_anew(model: SSD2, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ContextPool(model, slots=2, max_tokens=48)
    pool.hold({0: context_of(model, LONG, 500)})
    pool.forget(0)
    assert encoded(pool, model, {1: context_of(model, LONG, 500)}, monkeypatch) == len(LONG)


def test_a_slot_that_is_written_over_is_not_copied_from_as_what_it_was() -> None:
    """Slot 0 turns to another timestep, copying it from slot 1, in the round in which slot 2 wants slot 0's old one."""
    model = tiny_model(3, context_timestep="quantised")
    pool = ContextPool(model, slots=3, max_tokens=48)
    pool.hold({0: context_of(model, LONG, 950), 1: context_of(model, LONG, 500)})
    pool.hold({0: context_of(model, (*LONG, 30), 500), 2: context_of(model, (*LONG, 31), 950)})
    found = logits_by_slot(pool, [0, 2], [500, 950])
    assert_as_written(model, found, 0, (*LONG, 30), 500)
    assert_as_written(model, found, 1, (*LONG, 31), 950)


def test_an_encoding_that_fails_halfway_leaves_nothing_wrong_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(3, context_timestep="quantised")
    pool = ContextPool(model, slots=3, max_tokens=48)
    pool.hold({0: context_of(model, LONG, 950)})
    with monkeypatch.context() as patch:
        patch.setattr(model.transformer.layers[1], "forward", fail)  # the first layer's have been written by then
        with pytest.raises(RuntimeError, match="halfway"):
            pool.hold({0: context_of(model, LONG, 500)})
    pool.hold({1: context_of(model, LONG, 950), 0: context_of(model, LONG, 500)})
    found = logits_by_slot(pool, [1, 0], [950, 500])
    assert_as_written(model, found, 0, LONG, 950)
    assert_as_written(model, found, 1, LONG, 500)


def fail(*_: object) -> None:
    raise RuntimeError("halfway")


def test_slots_grow_without_losing_what_they_hold(model: SSD2, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ContextPool(model, slots=2, max_tokens=len(LONG) + 4)
    pool.hold({1: context_of(model, LONG, 500)})
    pool.make_room(len(LONG) + 5)
    longer = (*LONG, 30)
    assert pool.max_tokens >= len(LONG) + 5
    assert encoded(pool, model, {1: context_of(model, longer, 500)}, monkeypatch) == 1
    assert_as_written(model, logits_by_slot(pool, [1], [500]), 0, longer, 500)


def test_the_memory_of_a_slot_is_that_of_its_keys_and_values() -> None:
    pool = ContextPool(tiny_model(), slots=5, max_tokens=48)
    assert pool.bytes_per_slot == 2 * 2 * 48 * 16 * 4  # layers, keys and values, tokens, width, float32


def test_only_contexts_of_the_same_place_share_tokens() -> None:
    context = Context((1, 2, 3), 4, 500)
    assert context.same_as(Context((1, 2, 9, 9), 4, 500)) == 2
    assert context.same_as(Context((1, 2, 3, 9), 4, 500)) == 3
    assert context.same_as(Context((1, 2), 4, 500)) == 2
    assert context.same_as(replace(context, first_position=5)) == 0
    assert context.same_as(replace(context, timestep=0)) == 0


def test_only_prompts_of_one_scope_are_shared() -> None:
    context = Context((1, 2, 3, 4), 0, 0, prompt_tokens=3, scope="one")
    assert context.shared_with(context) == 3
    assert context.shared_with(replace(context, prompt_tokens=4)) == 3
    assert replace(context, prompt_tokens=4).shared_with(context) == 3
    assert context.shared_with(replace(context, token_ids=(1, 2, 9))) == 2
    assert context.shared_with(replace(context, scope="two")) == 0
    assert context.shared_with(replace(context, timestep=500)) == 0
    private = replace(context, scope=None)
    assert private.shared_with(private) == 0
    assert Context((1, 2, 3), 0, 0).shared_with(Context((1, 2, 3), 0, 0)) == 0, "unless it is said to be shared"


@pytest.mark.parametrize("other", ["two", None])
@pytest.mark.parametrize("at_once", [True, False])
def test_nothing_is_copied_from_another_scope(
    model: SSD2, monkeypatch: pytest.MonkeyPatch, other: str | None, at_once: bool
) -> None:
    pool = ContextPool(model, slots=3, max_tokens=48)
    first, second = context_of(model, LONG, 500), context_of(model, LONG, 500, scope=other)
    if at_once:
        assert encoded(pool, model, {0: first, 1: second}, monkeypatch) == 2 * len(LONG)
    else:
        assert encoded(pool, model, {0: first}, monkeypatch) == len(LONG)
        assert encoded(pool, model, {1: second}, monkeypatch) == len(LONG)
    assert encoded(pool, model, {2: first}, monkeypatch) == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_the_tokens_of_an_answer_are_copied_by_no_other(
    model: SSD2, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Neither from an answer whose prompt they are, nor to one; the prompt before them is."""
    pool = ContextPool(model, slots=4, max_tokens=48)
    answered = context_of(model, LONG, 500, answer_tokens=8)
    asked = context_of(model, LONG, 500)
    if at_once:
        assert encoded(pool, model, {0: answered, 1: asked, 2: answered}, monkeypatch) == len(LONG) + 2 * 8
    else:
        assert encoded(pool, model, {0: answered}, monkeypatch) == len(LONG)
        assert encoded(pool, model, {1: asked}, monkeypatch) == 8
        assert encoded(pool, model, {2: answered}, monkeypatch) == 8
    assert_as_written(model, logits_by_slot(pool, [0, 1, 2], [500] * 3), 1, LONG, 500)
    longer = context_of(model, (*LONG, 30), 500, answer_tokens=9)
    assert encoded(pool, model, {0: longer}, monkeypatch) == 1, "what an answer has committed itself, it keeps"
