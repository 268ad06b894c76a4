"""The sampler against a straight transcription of Algorithm 2, and how answers end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.noise import gaussian_noise, uniform_noise
from ssd2.algorithm.noised_simplex import noised_simplex, x_t_of
from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.sampler import project, prune
from ssd2.algorithm.simplex import ids_to_simplex
from ssd2.algorithm.simplex_sampler import SimplexSampler

VOCAB, EOS = 13, 2
Model = Callable[[BlockView], Tensor]


def drive(
    model: Model, params: DecodingParams, seeds: Sequence[Seeds]
) -> tuple[list[list[int]], list[BlockView], list[Tensor]]:
    """Run a decode; the answers, with what was asked and what was given."""
    sampler = SimplexSampler(params, seeds, stop_ids=(EOS,))
    requests, given = [], []
    while sampler.due is not None:
        requests.append(sampler.due)
        given.append(model(requests[-1]))
        sampler.step(given[-1])
    return sampler.answers, requests, given


def nothing(request: BlockView) -> Tensor:
    """Logits of 0."""
    return torch.zeros(len(request.noise_seeds), request.block_size, VOCAB)


def fake_logits(x_t: np.ndarray, context: Sequence[int], t: int) -> np.ndarray:
    """A fake model of one row, [L, V] -> [L, V]: reads x_t in both directions, the context and t. Never says EOS."""
    weights = np.sin(np.arange(VOCAB * VOCAB)).reshape(VOCAB, VOCAB)
    bias = np.cos(np.arange(VOCAB) * (1 + sum((i + 1) * token for i, token in enumerate(context))))
    logits = np.tanh(x_t @ weights / 10) + 0.5 * np.tanh(x_t[::-1] @ weights.T / 10) + bias + t / 1000
    logits[:, EOS] = -20
    return logits


def fake_model(request: BlockView, hearing: float = 1.0) -> Tensor:
    x_t_rows = hearing * x_t_of(request, VOCAB)
    rows = zip(x_t_rows.double().numpy(), request.answer_ids.tolist(), strict=True)
    return torch.tensor(np.stack([fake_logits(x_t, context, request.timestep) for x_t, context in rows])).float()


def scripted(*answers: Sequence[int]) -> Model:
    """A fake model that is sure of the given answers, and of token 9 behind their ends."""

    def model(request: BlockView) -> Tensor:
        logits = nothing(request)
        length = logits.shape[1]
        for row, answer in enumerate(answers):
            padded = [*answer, *[9] * (length * (request.block + 1))]
            for position, token in enumerate(padded[request.block * length :][:length]):
                logits[row, position, token] = 50.0
        return logits

    return model


def seeds_for(rows: int) -> list[Seeds]:
    return [Seeds(100 + row, 200 + row) for row in range(rows)]


def project_by_hand(logits: np.ndarray, params: DecodingParams, uniform: Sequence[float]) -> np.ndarray:
    """Line 9 for one row, position by position."""
    x0_hat = np.full(logits.shape, -params.simplex_value)
    for position, row in enumerate(logits):
        p = np.exp(row) / np.exp(row).sum()
        order = np.argsort(-p)
        nucleus = order[: int(np.searchsorted(np.cumsum(p[order]), params.top_p)) + 1]
        if params.projection == "greedy":
            nucleus = order[:1]
        if params.projection == "sampling":
            ids = np.sort(nucleus)
            nucleus = ids[np.searchsorted(np.cumsum(p[ids]) / p[ids].sum(), uniform[position])]
        x0_hat[position, nucleus] = params.simplex_value
    return x0_hat


def algorithm_2(params: DecodingParams, seeds: Seeds) -> tuple[list[int], list[np.ndarray]]:
    """Figure 2 of the paper for one row, line by line; the answer and every x_t."""

    def r(t: int) -> float:
        return math.cos((t / 1000 + 1e-4) / (1 + 1e-4) * math.pi / 2) ** 2

    context: list[int] = []
    trajectory: list[np.ndarray] = []
    x0_hat = np.zeros((params.block_size, VOCAB))
    for block in range(params.max_blocks):
        for step, t in enumerate(params.timesteps):  # line 2
            at: dict[str, Any] = {"block": block, "timestep": t, "length": params.block_size}
            z = params.simplex_value * gaussian_noise([seeds.noise], vocab_size=VOCAB, **at)[0].double().numpy()
            alpha_bar_t = r(t) / r(0)
            x_t = z if step == 0 else math.sqrt(alpha_bar_t) * x0_hat + math.sqrt(1 - alpha_bar_t) * z  # 1, 10, 11
            trajectory.append(x_t)
            logits = fake_logits(x_t, context, t)  # lines 3 to 8
            x0_hat = project_by_hand(logits, params, uniform_noise([seeds.sampling], **at)[0].tolist())  # line 9
        context += np.where(x0_hat > 0, logits, -np.inf).argmax(-1).tolist()  # line 13
    return context, trajectory


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
@pytest.mark.parametrize("stop", [0.0, 0.4])
def test_decoding_is_algorithm_2(projection: str, stop: float) -> None:
    params = DecodingParams(
        block_size=4, max_tokens=12, steps=5, stop=stop, projection=projection, top_p=0.6, simplex_value=5.0
    )
    seeds = seeds_for(2)
    answers, requests, _ = drive(fake_model, params, seeds)
    for row, row_seeds in enumerate(seeds):
        answer, trajectory = algorithm_2(params, row_seeds)
        assert answers[row] == answer
        for request, x_t in zip(requests, trajectory, strict=True):
            found = x_t_of(request, VOCAB)[row].double()
            torch.testing.assert_close(found, torch.tensor(x_t), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("self_conditioning", ["own", "mixed"])
def test_views_carry_the_place_and_what_was_projected_in_the_block(self_conditioning: str) -> None:
    """The mix, of the size of V, only where a model is fed it back."""
    params = DecodingParams(block_size=3, max_tokens=6, steps=4, stop=0.4, self_conditioning=self_conditioning)
    _, views, given = drive(fake_model, params, seeds_for(2))
    places = [(view.block, view.step, view.timestep) for view in views]
    assert places == [(block, step, t) for block in (0, 1) for step, t in enumerate((1000, 850, 700, 550))]
    projected = [project(g, params, [200, 201], v.block, v.timestep).rows for g, v in zip(given, views, strict=True)]
    for index, view in enumerate(views):
        first = index - view.step
        assert [at.rows for at in view.trail] == projected[first:index]
        assert [at.timestep for at in view.trail] == [1000, 850, 700, 550][: view.step]
        is_fed_back = view.step > 0 and self_conditioning == "mixed"
        assert view.mixed_logits is (given[index - 1] if is_fed_back else None)


def test_the_view_of_the_timestep_before_is_what_was_due_then() -> None:
    _, views, _ = drive(fake_model, DecodingParams(block_size=3, max_tokens=3, steps=4, stop=0.4), seeds_for(2))
    for earlier, later in pairwise(views):
        assert later.before() == earlier
    with pytest.raises(ValueError, match="timestep 0 of block 0"):
        views[0].before()
    with pytest.raises(ValueError, match="timestep 2 of block 0"):
        replace(views[2], trail=views[2].trail[1:]).before()


def test_a_model_that_is_asked_now_and_then_sees_what_was_projected_since() -> None:
    _, views, _ = drive(fake_model, DecodingParams(block_size=3, max_tokens=3, steps=5, stop=0.4), seeds_for(1))
    seen = views[4].at_every(2)
    assert (seen.step, seen.timestep, seen.projected) == (2, views[4].timestep, views[4].projected)
    assert [at.timestep for at in seen.trail] == [views[0].timestep, views[2].timestep]
    assert [at.rows for at in seen.trail] == [views[4].trail[1].rows, views[4].trail[3].rows]


def test_every_block_begins_at_pure_noise_of_scale_k() -> None:
    params = DecodingParams(block_size=25, max_tokens=50, steps=2, stop=0.4, simplex_value=3.0)
    _, requests, _ = drive(fake_model, params, seeds_for(8))
    first, second = (x_t_of(request, VOCAB) for request in requests if request.step == 0)
    assert first.std().item() == pytest.approx(3.0, rel=0.05)
    assert not torch.equal(first, second)


def test_committed_blocks_are_the_context_of_the_next() -> None:
    answer = [3, 4, 5, 6, 7, 8, 9, 10, 11]
    params = DecodingParams(block_size=3, max_tokens=9, steps=2, stop=0.4)
    _, requests, _ = drive(scripted(answer, answer[::-1]), params, seeds_for(2))
    for request in requests:
        done = 3 * request.block
        assert request.answer_ids.tolist() == [answer[:done], answer[::-1][:done]]
        assert request.answer_ids.dtype == torch.int64


def test_an_answer_is_cut_before_its_first_eos() -> None:
    params = DecodingParams(block_size=4, max_tokens=12, steps=2, stop=0.4)
    answers, _, _ = drive(scripted([3, 4, 5, 6, 7, EOS, 8, EOS, 3, 3]), params, seeds_for(1))
    assert answers == [[3, 4, 5, 6, 7]]


def test_an_eos_at_the_start_gives_an_empty_answer() -> None:
    answers, _, _ = drive(scripted([EOS]), DecodingParams(block_size=4, max_tokens=8, steps=2, stop=0.4), seeds_for(1))
    assert answers == [[]]


def test_decoding_stops_as_soon_as_every_row_has_an_eos() -> None:
    params = DecodingParams(block_size=2, max_tokens=20, steps=3, stop=0.4)
    answers, requests, _ = drive(scripted([3, EOS], [4, 5, 6, 7, EOS], [8, 9, EOS]), params, seeds_for(3))
    assert answers == [[3], [4, 5, 6, 7], [8, 9]]
    assert len(requests) == 3 * 3  # the second row needs three blocks of three timesteps


def test_an_answer_without_eos_ends_at_max_tokens() -> None:
    params = DecodingParams(block_size=4, max_tokens=6, steps=2, stop=0.4)
    answers, requests, _ = drive(scripted([3, 4, 5, 6, 7, 8, 10, 11]), params, seeds_for(1))
    assert answers == [[3, 4, 5, 6, 7, 8]]
    assert requests[-1].block == 1


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
def test_a_rows_answer_does_not_depend_on_the_batch(projection: str) -> None:
    params = DecodingParams(block_size=3, max_tokens=9, steps=4, stop=0.4, projection=projection, top_p=0.8)

    def ends_early(request: BlockView) -> Tensor:
        """Rows end in different blocks, as their first noise has it."""
        logits = fake_model(request)
        wants_end = x_t_of(request, VOCAB)[:, :1, :1] * (1 + request.block) > 3
        logits[..., EOS] = torch.where(wants_end, 30.0, logits[..., EOS : EOS + 1])[..., 0]
        return logits

    seeds = seeds_for(6)
    together, _, _ = drive(ends_early, params, seeds)
    alone = [drive(ends_early, params, [row_seeds])[0][0] for row_seeds in seeds]
    assert together == alone
    assert len({len(answer) for answer in together}) > 1


def settling(*settles_at: int) -> Model:
    """A fake model whose rows change their tokens at every timestep of a block until each is sure, at its own one."""

    def model(request: BlockView) -> Tensor:
        logits = nothing(request)
        for row, step in enumerate(settles_at):
            logits[row, :, 3 + min(request.step, step + request.block)] = 50.0
        return logits

    return model


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
@pytest.mark.parametrize(("patience", "timesteps"), [(1, 4 + 5), (2, 5 + 6), (4, 7 + 7), (None, 7 + 7)])
def test_a_block_ends_when_its_tokens_have_stayed_the_same(
    projection: str, patience: int | None, timesteps: int
) -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=7, stop=0.6, projection=projection, patience=patience)
    answers, requests, _ = drive(settling(2), params, seeds_for(1))
    assert len(requests) == timesteps
    assert answers == [[5] * 4 + [6] * 4]


def test_tokens_that_go_on_changing_get_all_timesteps() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=9, stop=0.6, patience=1)
    _, requests, _ = drive(settling(100), params, seeds_for(1))
    assert len(requests) == 2 * 9


def test_a_row_that_is_done_keeps_its_tokens_while_others_go_on() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=8, stop=0.6, patience=2)
    answers, requests, _ = drive(settling(0, 3, 100), params, seeds_for(3))
    at_work = {block: [r.rows_at_work for r in requests if r.block == block] for block in (0, 1)}
    assert at_work == {0: [3, 3, 3, 2, 2, 2, 1, 1], 1: [3, 3, 3, 3, 2, 2, 2, 1]}
    assert answers == [[3] * 4 + [4] * 4, [6] * 4 + [7] * 4, [10] * 8]


def test_a_token_changed_after_its_row_is_done_does_not_reach_the_answer() -> None:
    """The first row's tokens stay for three timesteps and change while the second row is still at work."""

    def relapsing(request: BlockView) -> Tensor:
        logits = nothing(request)
        logits[0, :, 3 if request.step < 3 else 9] = 50.0
        logits[1:, :, 3 + request.step] = 50.0
        return logits

    params = DecodingParams(block_size=4, max_tokens=4, steps=6, stop=0.6, patience=2)
    for rows in (1, 2):
        assert drive(relapsing, params, seeds_for(rows))[0][0] == [3] * 4


def test_rows_whose_answer_has_ended_are_not_waited_for() -> None:
    """The first row says EOS in its first block, and its tokens never stay the same after it."""

    def model(request: BlockView) -> Tensor:
        logits = settling(0, 0)(request)
        logits[0, :, EOS if request.block == 0 else 5 + request.step] = 99.0
        return logits

    params = DecodingParams(block_size=4, max_tokens=12, steps=6, stop=0.6, patience=1)
    answers, requests, _ = drive(model, params, seeds_for(2))
    assert answers == [[], [3] * 4 + [4] * 4 + [5] * 4]
    assert [request.rows_at_work for request in requests] == [2] * 2 + [1] * (3 + 4)


def undecided(request: BlockView) -> Tensor:
    """A fake model that halves its mass between tokens 3 and 4, always with a little more on 3."""
    logits = nothing(request) - 50.0
    logits[..., 3], logits[..., 4] = 0.01, 0.0
    return logits


def test_it_is_the_projection_that_has_to_stay_the_same_not_the_argmax_of_the_mix() -> None:
    """What is drawn crosses; that the argmax behind the draws stays the same does not, and must not show."""
    params = DecodingParams(block_size=16, max_tokens=16, steps=6, stop=0.6, top_p=1.0, patience=1)
    assert len(drive(undecided, params, seeds_for(1))[1]) == 6
    for projection in ("greedy", "multi-hot"):
        certain = replace(params, projection=projection)
        assert len(drive(undecided, certain, seeds_for(1))[1]) == 2


def test_an_entropy_bound_keeps_a_block_going_while_the_mix_is_undecided() -> None:
    params = DecodingParams(block_size=4, max_tokens=4, steps=6, stop=0.6, projection="greedy", patience=1)
    for bound, timesteps in ((None, 2), (0.70, 2), (0.69, 6)):  # log(2) is 0.693
        assert len(drive(undecided, replace(params, entropy_bound=bound), seeds_for(1))[1]) == timesteps


@pytest.mark.parametrize("projection", ["sampling", "multi-hot"])
def test_the_temperature_divides_the_logits_that_are_projected(projection: str) -> None:
    logits = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0)) * 3
    cold, plain = (DecodingParams(4, projection=projection, top_p=0.9, temperature=t) for t in (0.5, 1.0))
    assert project(logits, cold, [3], 0, 700).rows == project(logits * 2, plain, [3], 0, 700).rows
    assert project(logits, cold, [3], 0, 700).rows != project(logits, plain, [3], 0, 700).rows


@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize(("projection", "top_p"), [("greedy", 1.0), ("sampling", 0.1), ("multi-hot", 0.8)])
def test_where_a_rows_blocks_end_does_not_depend_on_the_batch(projection: str, top_p: float, patience: int) -> None:
    params = DecodingParams(
        block_size=3, max_tokens=9, steps=9, stop=0.6, projection=projection, top_p=top_p, patience=patience
    )

    def calm(request: BlockView) -> Tensor:
        """Nearly deaf to the noise, so that tokens come to stay the same, in each row at its own time."""
        return fake_model(request, hearing=0.04)

    seeds = seeds_for(8)
    together, requests, _ = drive(calm, params, seeds)
    alone = [drive(calm, params, [row_seeds]) for row_seeds in seeds]
    assert together == [answers[0] for answers, _, _ in alone]
    assert sum(request.rows_at_work for request in requests) == sum(len(asked) for _, asked, _ in alone)
    assert len({len(asked) for _, asked, _ in alone}) > 1, "all rows ended alike, which shows nothing"


def test_the_schedule_decides_which_timesteps_are_asked_for() -> None:
    params = DecodingParams(block_size=4, max_tokens=4, steps=10, stop=0.4, schedule="changes")
    _, requests, _ = drive(fake_model, params, seeds_for(1))
    assert [request.timestep for request in requests] == [1000, 900, 800, 760, 720, 680, 640, 600, 534, 467]


def test_the_sampling_projection_follows_the_devices_own_seed() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=5, stop=0.4, top_p=1.0)
    answers = {str(drive(fake_model, params, [Seeds(1, sampling)])[0]) for sampling in range(5)}
    assert len(answers) == 5
    greedy = DecodingParams(block_size=4, max_tokens=8, steps=5, stop=0.4, projection="greedy")
    assert len({str(drive(fake_model, greedy, [Seeds(1, sampling)])[0]) for sampling in range(5)}) == 1
    assert len({str(drive(fake_model, greedy, [Seeds(noise, 1)])[0]) for noise in range(5)}) > 1


def test_the_core_can_follow_the_trajectory_from_projections_and_the_public_seed() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=5, stop=0.4, top_p=1.0)
    _, requests, _ = drive(fake_model, params, [Seeds(1, 77)])
    for request in requests:
        x0_hat = None
        if request.projected:
            x0_hat = ids_to_simplex(torch.tensor([row.token_ids for row in request.projected]), VOCAB, 5.0)
        place = {"block": request.block, "timestep": request.timestep, "length": 4}
        x_t = noised_simplex(x0_hat, [1], **place, simplex_value=5.0, vocab_size=VOCAB)
        assert torch.equal(x_t, x_t_of(request, VOCAB))


def test_a_multi_hot_block_commits_its_most_likely_tokens() -> None:
    params = DecodingParams(block_size=5, max_tokens=5, steps=3, stop=0.4, projection="multi-hot", top_p=0.9)
    answers, requests, given = drive(fake_model, params, seeds_for(3))
    assert requests[-1].projected
    assert any(row.counts for row in requests[-1].projected)
    assert answers == given[-1].argmax(-1).tolist()


def test_prune() -> None:
    assert prune([5, 6, 2, 7, 2], (2,)) == [5, 6]
    assert prune([5, 6], (2,)) == [5, 6]
    assert prune([2], (2,)) == []
