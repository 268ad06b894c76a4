"""One model's part in a decode: what it caches and what it feeds back must not show in its logits."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from conftest import block_view, experts_of, plain_logits, tiny_model
from torch import Tensor

from ssd2.algorithm import noised_simplex
from ssd2.algorithm.block_view import BlockView, ProjectedAt
from ssd2.algorithm.noised_simplex import x_t_of
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.algorithm.simplex import tokens_to_simplex
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import InvalidParameter, PromptTooLong, TokenOutOfRange
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.ssd2 import SSD2

PROMPTS = [[1, 5, 9], [1, 7, 8, 6, 30, 11], [1]]
PARAMS = DecodingParams(
    block_size=4, max_tokens=12, steps=18, stop=0.4, top_p=0.9
)  # some buckets of Q = 50 hold two of 18
SEEDS = [Seeds(row, 50 + row) for row in range(len(PROMPTS))]


def from_scratch(model: SSD2 | TimeRangeExperts, request: BlockView, self_cond: Tensor | None, row: int) -> Tensor:
    """Logits of one row alone, its whole context encoded anew."""
    position = model.config.answer_position
    return plain_logits(
        model.at(request.timestep),
        torch.tensor([*PROMPTS[row], *request.answer_ids[row].tolist()]),
        position - len(PROMPTS[row]) if position else 0,
        x_t_of(request, 32)[row],
        None if self_cond is None else self_cond[row],
        request.timestep,
    )


def other_logits(request: BlockView) -> Tensor:
    """The other model's share of the mix: anything that is not the denoiser's own."""
    return torch.sin(3 * x_t_of(request, 32))


@pytest.mark.parametrize("context_timestep", ["quantised", "none"])
@pytest.mark.parametrize("answer_position", [None, 20])
@pytest.mark.parametrize("self_conditioning", ["own", "projection", "mixed"])
@pytest.mark.parametrize("models", [1, 3])
def test_cached_logits_are_those_from_scratch_with_what_is_to_be_fed_back(
    context_timestep: str, answer_position: int | None, self_conditioning: str, models: int
) -> None:
    shape = {"context_timestep": context_timestep, "answer_position": answer_position}
    several = [tiny_model(3 + seed, **shape) for seed in range(models)]
    model = several[0] if models == 1 else experts_of(*several)
    denoiser = Denoiser(model, PROMPTS, self_conditioning)
    sampler = SimplexSampler(replace(PARAMS, self_conditioning=self_conditioning), SEEDS, stop_ids=())
    previous, views = None, 0
    while view := sampler.due:
        views += 1
        x0_hat = tokens_to_simplex(view.projected, 4, 32, 5.0) if view.projected else None
        fed_back = {"own": previous, "projection": x0_hat, "mixed": view.mixed_logits}
        self_cond = None if view.step == 0 else fed_back[self_conditioning]
        previous = denoiser.logits(view)
        for row in range(len(PROMPTS)):
            expected = from_scratch(model, view, self_cond, row)
            torch.testing.assert_close(previous[row], expected, atol=1e-4, rtol=1e-4)
        sampler.step((previous + other_logits(view)) / 2)
    assert views == 3 * 18


def test_the_three_ways_of_feeding_back_differ() -> None:
    model = tiny_model(3)
    first = block_view(timestep=900)
    mixed_logits = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1))
    trail = (ProjectedAt(900, (ProjectedTokens((3, 4, 5, 6)),)),)
    second = block_view(step=1, timestep=850, trail=trail, mixed_logits=mixed_logits)
    found = []
    for self_conditioning in ("own", "projection", "mixed"):
        denoiser = Denoiser(model, [[1, 4]], self_conditioning)
        found += [denoiser.logits(first), denoiser.logits(second)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[4])
    assert all(
        (a - b).abs().max() > 1e-3 for a, b in ((found[1], found[3]), (found[3], found[5]), (found[1], found[5]))
    )
    assert (found[1] - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize(("share", "fed_back_value"), [(None, 5.0), (0.9, math.log(0.9 / 0.1 * 31) / 2)])
def test_a_projection_is_fed_back_with_the_share_that_the_config_names(
    share: float | None, fed_back_value: float
) -> None:
    """x_t keeps its own K: only what is fed back is sharpened."""
    model = tiny_model(3, feedback_share=share)
    trail = (ProjectedAt(900, (ProjectedTokens((3, 4, 5, 6)),) * 3),)
    view = block_view(rows=3, step=1, timestep=850, trail=trail)
    self_cond = tokens_to_simplex(view.projected, 4, 32, fed_back_value)
    found = Denoiser(model, PROMPTS, "projection").logits(view)
    for row in range(3):
        expected = from_scratch(model, view, self_cond, row)
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)
    assert self_cond.softmax(-1)[0, 0, 3] == pytest.approx(share or 0.9986, abs=1e-4)


@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
def test_logits_are_a_function_of_what_was_projected_whatever_was_asked_before(self_conditioning: str) -> None:
    """Earlier timesteps, other projections before them and other answers, in any order."""
    model, draw = tiny_model(3), random.Random(1)
    denoiser, views = Denoiser(model, [[1, 4]], self_conditioning), []
    for _ in range(12):
        step, answer = draw.randrange(4), draw.choice([[], [7, 8, 9, 3]])
        rows = [(ProjectedTokens(tuple(draw.choice([5, 6]) for _ in range(4))),) for _ in range(step)]
        views.append(
            block_view(
                block=len(answer) // 4,
                step=step,
                timestep=900 - 50 * step,
                answer_ids=torch.tensor([answer], dtype=torch.int64),
                trail=tuple(ProjectedAt(900 - 50 * earlier, row) for earlier, row in enumerate(rows)),
            )
        )
    for view in views:
        expected = Denoiser(model, [[1, 4]], self_conditioning).logits(view)
        torch.testing.assert_close(denoiser.logits(view), expected, atol=1e-5, rtol=1e-5)


def test_own_predictions_are_not_made_up_where_the_projections_before_are_not_known() -> None:
    trail = (ProjectedAt(850, (ProjectedTokens((3, 4, 5, 6)),)),)
    with pytest.raises(ValueError, match="timestep 2 of block 0"):
        Denoiser(tiny_model(3), [[1, 4]], "own").logits(block_view(step=2, timestep=800, trail=trail))


def test_rows_with_the_same_noise_and_projection_have_it_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = noised_simplex.gaussian_noise
    monkeypatch.setattr(
        noised_simplex, "gaussian_noise", lambda seeds, **place: made.append(len(seeds)) or original(seeds, **place)
    )
    view = block_view(2, noise_seeds=(3, 9))
    assert torch.equal(x_t_of(view.repeated(2), 32), torch.cat([x_t_of(view, 32)] * 2))
    assert made == [2, 2]


def encoded_tokens(context_timestep: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of context are encoded, time after time."""
    model = tiny_model(3, context_timestep=context_timestep)
    calls: list[int] = []
    embed = model.embed_context

    def counted(token_ids: Tensor, positions: Tensor, t: Tensor) -> Tensor:
        calls.append(token_ids.shape[1])
        return embed(token_ids, positions, t)

    monkeypatch.setattr(model, "embed_context", counted)
    denoiser = Denoiser(model, [[1, 5, 9]], "own")
    sampler = SimplexSampler(PARAMS, SEEDS[:1], stop_ids=())
    while sampler.due:
        sampler.step(denoiser.logits(sampler.due))
    return calls


def test_without_a_context_timestep_only_new_tokens_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoded_tokens("none", monkeypatch) == [3, 4, 4]


def test_with_a_quantised_one_the_context_is_encoded_once_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = {t - t % 50 for t in PARAMS.timesteps}
    assert len(buckets) < len(PARAMS.timesteps)
    assert encoded_tokens("quantised", monkeypatch) == [3 + 4 * block for block in range(3) for _ in buckets]


@pytest.mark.parametrize("prompts", [[[]], [[1], []]])
def test_an_empty_prompt_is_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(InvalidParameter, match="empty"):
        Denoiser(tiny_model(), prompts, "own")


@pytest.mark.parametrize("prompts", [[[1] * 45], [[1, 2], [1] * 45]])
def test_a_prompt_that_does_not_fit_is_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(PromptTooLong, match="takes at most 44"):
        Denoiser(tiny_model(), prompts, "own")


def test_the_longest_prompt_leaves_room_for_a_block() -> None:
    model = tiny_model()
    assert Denoiser(model, [[1] * 44], "own").logits(block_view()).isfinite().all()


@pytest.mark.parametrize("token_id", [32, -1])
def test_a_prompt_of_another_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(TokenOutOfRange, match="vocabulary of 32"):
        Denoiser(tiny_model(), [[1, token_id]], "own")
