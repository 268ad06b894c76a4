"""The pair in one process: the reference that the wire is compared with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import block_view, tiny_model

from ssd2.algorithm.collaboration import Timestep, decode_locally
from ssd2.algorithm.ensemble import weighted_average, weighted_sum
from ssd2.algorithm.params import RULES, CollaborationParams, DecodingParams, LambdaUser, Seeds
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.errors import PromptTooLong
from ssd2.logits.format import FLOAT16
from ssd2.logits.packed import as_received
from ssd2.models.denoiser import Denoiser
from ssd2.models.predict import user_terms

V, EOS = 32, 2
PARAMS = DecodingParams(block_size=4, max_tokens=12, steps=4, stop=0.4, top_p=0.9)
WITH_DOCS, WITHOUT = [[1, 9, 8, 7, 5], [1, 6, 5]], [[1, 5], [1, 7, 5]]
SEEDS = [Seeds.reproducible(1), Seeds.reproducible(2)]


def _together(
    collaboration: CollaborationParams, rows: slice = slice(None), params: DecodingParams = PARAMS, **options: Any
) -> list[list[int]]:
    core = Denoiser(tiny_model(1), WITHOUT[rows], params.self_conditioning)
    user = user_terms(tiny_model(2), WITH_DOCS[rows], WITHOUT[rows], collaboration, params.self_conditioning)
    return decode_locally(core, user, collaboration, SimplexSampler(params, SEEDS[rows], stop_ids=(EOS,)), **options)


@pytest.mark.parametrize("self_conditioning", ["own", "projection", "mixed"])
def test_it_is_the_ensemble_of_three_passes_at_every_timestep(self_conditioning: str) -> None:
    """The three passes of §3.2 run one by one, against the user's two as one batch."""
    params = DecodingParams(
        block_size=4, max_tokens=12, steps=4, stop=0.4, top_p=0.9, self_conditioning=self_conditioning
    )
    passes = [
        Denoiser(tiny_model(1), WITHOUT, self_conditioning),
        Denoiser(tiny_model(2), WITH_DOCS, self_conditioning),
        Denoiser(tiny_model(2), WITHOUT, self_conditioning),
    ]
    sampler = SimplexSampler(params, SEEDS, stop_ids=(EOS,))
    while sampler.due:
        core, with_docs, without = (model.logits(sampler.due) for model in passes)
        core = as_received(core, FLOAT16).values.float()
        sampler.step(0.7 * core + 0.3 * 2.5 * with_docs - 0.3 * 1.5 * without)
    assert _together(CollaborationParams(0.3, 1.5), params=params) == sampler.answers


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_lambda_auto_mixes_each_position_by_what_changed_there_in_its_block(alpha: float) -> None:
    passes = [Denoiser(model, p, "own") for model, p in ((tiny_model(1), WITHOUT), (tiny_model(2), WITH_DOCS))]
    passes.append(Denoiser(tiny_model(2), WITHOUT, "own"))
    sampler, seen = SimplexSampler(PARAMS, SEEDS, stop_ids=(EOS,)), list[Timestep]()
    answers = _together(CollaborationParams("auto", alpha), on_timestep=seen.append)
    of_block: list[torch.Tensor] = []
    for timestep in seen:
        core, user, without = (model.logits(sampler.due) for model in passes)
        p, q = user.softmax(-1), without.softmax(-1)
        entropy = torch.special.entr(torch.stack([(p + q) / 2, p, q])).sum(-1) / math.log(2)
        divergence = 0.9 * (entropy[0] - (entropy[1] + entropy[2]) / 2).clamp(min=0).sqrt()[..., None]
        of_block = [*(of_block if timestep.view.step else []), divergence]
        lambdas = torch.maximum(divergence, torch.stack(of_block).mean(0))
        torch.testing.assert_close(timestep.weights.lambda_user, lambdas, atol=1e-3, rtol=0)
        core = as_received(core, FLOAT16).values.float()
        mixed = (1 - lambdas) * core + lambdas * ((1 + alpha) * user - alpha * without)
        torch.testing.assert_close(timestep.mixed, mixed, atol=2e-2, rtol=0)
        sampler.step(timestep.mixed)
    assert answers == sampler.answers
    lambdas = torch.cat([timestep.weights.lambda_user for timestep in seen], 1)
    assert lambdas.std() > 0.01, "one for all positions would show nothing"


def test_by_the_difference_the_core_is_corrected_by_both_passes() -> None:
    passes = [Denoiser(model, p, "own") for model, p in ((tiny_model(1), WITHOUT), (tiny_model(2), WITH_DOCS))]
    passes.append(Denoiser(tiny_model(2), WITHOUT, "own"))
    sampler = SimplexSampler(PARAMS, SEEDS, stop_ids=(EOS,))
    while sampler.due:
        core, user, without = (model.logits(sampler.due) for model in passes)
        sampler.step(as_received(core, FLOAT16).values.float() + 2 * user - 2 * without)
    assert _together(CollaborationParams("difference", 2.0)) == sampler.answers


@pytest.mark.parametrize("lambda_user", [0.5, *RULES])
def test_a_row_does_not_depend_on_the_others_in_its_batch(lambda_user: LambdaUser) -> None:
    collaboration = CollaborationParams(lambda_user, 1.0)
    both = _together(collaboration)
    assert both == [*_together(collaboration, slice(0, 1)), *_together(collaboration, slice(1, 2))]
    assert both[0] != both[1]


@pytest.mark.parametrize(("projection", "self_conditioning"), [("greedy", "projection"), ("multi-hot", "own")])
def test_a_row_whose_blocks_end_early_does_not_depend_on_the_others(projection: str, self_conditioning: str) -> None:
    prompts = [[1, 5], [1, 7, 5], [1, 4], [1, 22]]
    with_docs = [[1, 9, 8, 7, 5], [1, 6, 5], [1, 3, 4], [1, 20, 21, 22]]
    params = DecodingParams(
        block_size=4,
        max_tokens=12,
        steps=8,
        stop=0.6,
        top_p=0.9,
        projection=projection,
        self_conditioning=self_conditioning,
        patience=1,
    )
    collaboration = CollaborationParams(0.4, 1.0)

    def run(rows: slice) -> tuple[list[list[int]], int]:
        core = Denoiser(tiny_model(1), prompts[rows], self_conditioning)
        user = user_terms(tiny_model(2), with_docs[rows], prompts[rows], collaboration, self_conditioning)
        seeds, at_work = [Seeds.reproducible(row) for row in range(4)][rows], []
        answers = decode_locally(
            core,
            user,
            collaboration,
            SimplexSampler(params, seeds, stop_ids=(EOS,)),
            on_timestep=lambda timestep: at_work.append(timestep.view.rows_at_work),
        )
        return answers, sum(at_work)

    (together, timesteps), alone = run(slice(None)), [run(slice(row, row + 1)) for row in range(4)]
    assert together == [answers[0] for answers, _ in alone]
    assert timesteps == sum(taken for _, taken in alone)
    assert len({taken for _, taken in alone}) > 1, "all rows ended alike, which shows nothing"


@pytest.mark.parametrize("self_conditioning", ["own", "projection"])
@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_between_the_timesteps_at_which_the_core_is_asked_its_last_logits_are_mixed(
    self_conditioning: str, every: int
) -> None:
    params = replace(PARAMS, steps=5, self_conditioning=self_conditioning, core_every=every)
    core, user = (
        Denoiser(tiny_model(1), WITHOUT, self_conditioning),
        Denoiser(tiny_model(2), WITH_DOCS, self_conditioning),
    )
    asked, mixed, expected = list[int](), list[torch.Tensor](), list[torch.Tensor]()

    sampler = SimplexSampler(params, SEEDS, stop_ids=(EOS,))
    while view := sampler.due:
        if view.step in range(0, 5, every):
            received = as_received(core.logits(view.at_every(every)), FLOAT16).values.float()
            asked.append(view.timestep)
        expected.append(0.5 * received + 0.5 * user.logits(view))
        sampler.step(expected[-1])
    _together(CollaborationParams(0.5, 0.0), params=params, on_timestep=lambda timestep: mixed.append(timestep.mixed))
    torch.testing.assert_close(torch.stack(mixed), torch.stack(expected))
    assert tuple(asked[: len(params.core_timesteps)]) == params.core_timesteps


def test_without_contrast_the_pass_without_documents_is_not_run() -> None:
    terms = user_terms(tiny_model(2), WITH_DOCS, [[99] * 1000], CollaborationParams(0.5, 0.0), "own")
    logits = terms.logits(block_view(2))
    assert logits.without_docs is None
    assert logits.with_docs is not None


def test_one_model_alone_needs_no_other() -> None:
    core = Denoiser(tiny_model(1), WITHOUT, "own")
    alone = decode_locally(core, None, CollaborationParams(0.0), SimplexSampler(PARAMS, SEEDS, stop_ids=(EOS,)))
    user = user_terms(tiny_model(2), WITH_DOCS, WITHOUT, CollaborationParams(1.0), "own")
    private = decode_locally(None, user, CollaborationParams(1.0), SimplexSampler(PARAMS, SEEDS, stop_ids=(EOS,)))
    assert alone != private


def test_an_answer_that_outgrows_the_positions_is_refused_and_not_a_crash() -> None:
    core = Denoiser(tiny_model(1), [[1] * 40], "own")
    with pytest.raises(PromptTooLong, match=r"40 \+ 12"):
        decode_locally(core, None, CollaborationParams(0.0), SimplexSampler(PARAMS, SEEDS[:1], stop_ids=(EOS,)))


def test_wire_precision_changes_no_distribution_by_more_than_its_rounding() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, V) * 10 + 5000
    travelled = as_received(logits, FLOAT16).values
    assert travelled.dtype == torch.float16
    assert bool((travelled <= 0).all())
    torch.testing.assert_close(travelled.float().softmax(-1), logits.softmax(-1), atol=2e-2, rtol=0)
    assert torch.isfinite(as_received(torch.tensor([[0.0, -1e9]]), FLOAT16).values).all()


def test_taking_off_a_rows_maximum_does_not_change_the_mix() -> None:
    torch.manual_seed(1)
    core, user, without = torch.randn(3, 1, 4, V) * 5
    plain = weighted_sum(core, user, without, weighted_average(0.3, 1.0))
    shifted = weighted_sum(core - core.amax(-1, keepdim=True), user, without, weighted_average(0.3, 1.0))
    torch.testing.assert_close(plain.softmax(-1), shifted.softmax(-1))
