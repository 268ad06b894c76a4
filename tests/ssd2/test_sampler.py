"""The sampler against a straight transcription of Algorithm 2, and how answers end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd2.noise import gaussian_noise, uniform_noise
from ssd2.params import DecodingParams, Seeds
from ssd2.sampler import LogitsRequest, commit, decode, noised_simplex, prune

VOCAB, EOS = 13, 2
Model = Callable[[LogitsRequest], Tensor]


def drive(
    model: Model, params: DecodingParams, seeds: Sequence[Seeds]
) -> tuple[list[list[int]], list[LogitsRequest], list[Tensor]]:
    """Run a decode; the answers, with what was asked and what was given."""
    run = decode(params, seeds, vocab_size=VOCAB, eos_token_id=EOS)
    requests, given = [next(run)], []
    try:
        while True:
            given.append(model(requests[-1]))
            requests.append(run.send(given[-1]))
    except StopIteration as finished:
        return finished.value, requests, given


def fake_logits(x_t: np.ndarray, context: Sequence[int], t: int) -> np.ndarray:
    """A fake model of one row, [L, V] -> [L, V]: reads x_t in both directions, the context and t. Never says EOS."""
    weights = np.sin(np.arange(VOCAB * VOCAB)).reshape(VOCAB, VOCAB)
    bias = np.cos(np.arange(VOCAB) * (1 + sum((i + 1) * token for i, token in enumerate(context))))
    logits = np.tanh(x_t @ weights / 10) + 0.5 * np.tanh(x_t[::-1] @ weights.T / 10) + bias + t / 1000
    logits[:, EOS] = -20
    return logits


def fake_model(request: LogitsRequest) -> Tensor:
    rows = zip(request.x_t.double().numpy(), request.answer_ids.tolist(), strict=True)
    return torch.tensor(np.stack([fake_logits(x_t, context, request.timestep) for x_t, context in rows])).float()


def scripted(*answers: Sequence[int]) -> Model:
    """A fake model that is sure of the given answers, and of token 9 behind their ends."""

    def model(request: LogitsRequest) -> Tensor:
        logits = torch.zeros_like(request.x_t)
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
            torch.testing.assert_close(request.x_t[row].double(), torch.tensor(x_t), atol=1e-4, rtol=1e-4)


def test_requests_carry_the_place_and_the_previous_prediction() -> None:
    params = DecodingParams(block_size=3, max_tokens=6, steps=4)
    _, requests, given = drive(fake_model, params, seeds_for(2))
    places = [(request.block, request.step, request.timestep) for request in requests]
    assert places == [(block, step, t) for block in (0, 1) for step, t in enumerate((1000, 850, 700, 550))]
    for index, request in enumerate(requests):
        assert request.x_t.shape == (2, 3, VOCAB)
        if request.step == 0:
            assert request.x0_hat is None
            assert request.mixed_logits is None
        else:
            assert request.mixed_logits is given[index - 1]
            assert request.x0_hat is not None
            assert set(request.x0_hat.flatten().tolist()) == {-5.0, 5.0}


def test_every_block_begins_at_pure_noise_of_scale_k() -> None:
    params = DecodingParams(block_size=25, max_tokens=50, steps=2, simplex_value=3.0)
    _, requests, _ = drive(fake_model, params, seeds_for(8))
    first, second = (request.x_t for request in requests if request.step == 0)
    assert first.std().item() == pytest.approx(3.0, rel=0.05)
    assert not torch.equal(first, second)


def test_committed_blocks_are_the_context_of_the_next() -> None:
    answer = [3, 4, 5, 6, 7, 8, 9, 10, 11]
    params = DecodingParams(block_size=3, max_tokens=9, steps=2)
    _, requests, _ = drive(scripted(answer, answer[::-1]), params, seeds_for(2))
    for request in requests:
        done = 3 * request.block
        assert request.answer_ids.tolist() == [answer[:done], answer[::-1][:done]]
        assert request.answer_ids.dtype == torch.int64


def test_an_answer_is_cut_before_its_first_eos() -> None:
    params = DecodingParams(block_size=4, max_tokens=12, steps=2)
    answers, _, _ = drive(scripted([3, 4, 5, 6, 7, EOS, 8, EOS, 3, 3]), params, seeds_for(1))
    assert answers == [[3, 4, 5, 6, 7]]


def test_an_eos_at_the_start_gives_an_empty_answer() -> None:
    answers, _, _ = drive(scripted([EOS]), DecodingParams(block_size=4, max_tokens=8, steps=2), seeds_for(1))
    assert answers == [[]]


def test_decoding_stops_as_soon_as_every_row_has_an_eos() -> None:
    params = DecodingParams(block_size=2, max_tokens=20, steps=3)
    answers, requests, _ = drive(scripted([3, EOS], [4, 5, 6, 7, EOS], [8, 9, EOS]), params, seeds_for(3))
    assert answers == [[3], [4, 5, 6, 7], [8, 9]]
    assert len(requests) == 3 * 3  # the second row needs three blocks of three timesteps


def test_an_answer_without_eos_ends_at_max_tokens() -> None:
    params = DecodingParams(block_size=4, max_tokens=6, steps=2)
    answers, requests, _ = drive(scripted([3, 4, 5, 6, 7, 8, 10, 11]), params, seeds_for(1))
    assert answers == [[3, 4, 5, 6, 7, 8]]
    assert requests[-1].block == 1


@pytest.mark.parametrize("projection", ["greedy", "sampling", "multi-hot"])
def test_a_rows_answer_does_not_depend_on_the_batch(projection: str) -> None:
    params = DecodingParams(block_size=3, max_tokens=9, steps=4, projection=projection, top_p=0.8)

    def ends_early(request: LogitsRequest) -> Tensor:
        """Rows end in different blocks, as their first noise has it."""
        logits = fake_model(request)
        wants_end = request.x_t[:, :1, :1] * (1 + request.block) > 3
        logits[..., EOS] = torch.where(wants_end, 30.0, logits[..., EOS : EOS + 1])[..., 0]
        return logits

    seeds = seeds_for(6)
    together, _, _ = drive(ends_early, params, seeds)
    alone = [drive(ends_early, params, [row_seeds])[0][0] for row_seeds in seeds]
    assert together == alone
    assert len({len(answer) for answer in together}) > 1


def test_the_sampling_projection_follows_the_devices_own_seed() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=5, top_p=1.0)
    answers = {str(drive(fake_model, params, [Seeds(1, sampling)])[0]) for sampling in range(5)}
    assert len(answers) == 5
    greedy = DecodingParams(block_size=4, max_tokens=8, steps=5, projection="greedy")
    assert len({str(drive(fake_model, greedy, [Seeds(1, sampling)])[0]) for sampling in range(5)}) == 1
    assert len({str(drive(fake_model, greedy, [Seeds(noise, 1)])[0]) for noise in range(5)}) > 1


def test_the_core_can_follow_the_trajectory_from_projections_and_the_public_seed() -> None:
    params = DecodingParams(block_size=4, max_tokens=8, steps=5, top_p=1.0)
    _, requests, _ = drive(fake_model, params, [Seeds(1, 77)])
    for request in requests:
        x_t = noised_simplex(request.x0_hat, [1], request.block, request.timestep, params, VOCAB)
        assert torch.equal(x_t, request.x_t)


def test_a_multi_hot_block_commits_its_most_likely_tokens() -> None:
    params = DecodingParams(block_size=5, max_tokens=5, steps=3, projection="multi-hot", top_p=0.9)
    answers, requests, given = drive(fake_model, params, seeds_for(3))
    assert requests[-1].x0_hat is not None
    assert bool(((requests[-1].x0_hat > 0).sum(-1) > 1).any())
    assert answers == given[-1].argmax(-1).tolist()


def test_commit_gives_the_sampled_token_even_where_another_is_more_likely() -> None:
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 5.0, 4.0]]])
    x0_hat = torch.tensor([[[-5.0, 5.0, -5.0, -5.0], [5.0, -5.0, -5.0, 5.0]]])
    assert commit(logits, x0_hat).tolist() == [[1, 3]]


def test_prune() -> None:
    assert prune([5, 6, 2, 7, 2], 2) == [5, 6]
    assert prune([5, 6], 2) == [5, 6]
    assert prune([2], 2) == []
