"""Algorithm 2 written twice, from the paper and in the package, comes to the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.collaboration import Mixer
from ssd2.algorithm.noise import gaussian_noise, uniform_noise
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.algorithm.simplex_sampler import SimplexSampler
from ssd2.algorithm.timesteps import decoding_timesteps
from ssd2.models.denoiser import Denoiser
from ssd2.models.predict import user_terms
from ssd2.models.ssd2 import SSD2
from tests.bench import plain
from tests.conftest import tiny_model

V, T, BLOCKS = 32, 20, 3
NO_TOKEN = V
SEEDS = [Seeds.reproducible(number) for number in range(3)]
COLLABORATION = CollaborationParams(lambda_user=0.4, alpha=1.0)
CORE_PROMPTS = [[1, 5, 6], [1, 9], [1, 7, 8, 9, 10]]
USER_PROMPTS = [[1, 11, 12, 13, 5, 6], [1, 21, 22, 9], [1, 7, 8, 9, 10]]
PARAMS = DecodingParams(block_size=4, max_tokens=4 * BLOCKS, steps=T, stop=0.0, top_p=0.8, self_conditioning="mixed")


class PackageDraws:
    """The package's noise; T timesteps of it are spread over 1000."""

    def normal(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        seeds = [seeds.noise for seeds in SEEDS]
        return gaussian_noise(seeds, block=block, timestep=t * 1000 // T, length=shape[1], vocab_size=V)

    def uniform(self, shape: Sequence[int], block: int, t: int) -> Tensor:
        return uniform_noise([seeds.sampling for seeds in SEEDS], block=block, timestep=t * 1000 // T, length=shape[1])


@pytest.fixture(params=[{"context_timestep": "none", "answer_position": 16}, {}], ids=["demo-like", "opt-like"])
def models(request: pytest.FixtureRequest) -> list[SSD2]:
    return [tiny_model(seed, **request.param) for seed in (1, 2)]


def _plain(models: list[SSD2]) -> tuple[list[list[int]], list[Tensor]]:
    core, user = models
    terms = [
        plain.Term(core, 0.6, CORE_PROMPTS),
        plain.Term(user, 0.8, USER_PROMPTS),
        plain.Term(user, -0.4, CORE_PROMPTS),
    ]
    settings = plain.Settings(block_size=4, max_blocks=BLOCKS, top_p=0.8, simplex_value=5.0, timesteps=T)
    logits: list[Tensor] = []
    return plain.decode(terms, settings, PackageDraws(), NO_TOKEN, logits.append), logits


def _packaged(models: list[SSD2]) -> tuple[list[list[int]], list[Tensor]]:
    core = Denoiser(models[0], CORE_PROMPTS, "mixed")
    user = user_terms(models[1], USER_PROMPTS, CORE_PROMPTS, COLLABORATION, "mixed")
    sampler, logits = SimplexSampler(PARAMS, SEEDS, stop_ids=()), list[Tensor]()
    while view := sampler.due:
        logits.append(Mixer(COLLABORATION).mix(core.logits(view), user.logits(view), view.step).logits)
        sampler.step(logits[-1])
    return sampler.answers, logits


def test_the_paper_s_lines_and_the_package_give_the_same_logits_and_tokens(models: list[SSD2]) -> None:
    assert decoding_timesteps(T, 0.0) == tuple(t * 1000 // T for t in range(T, 0, -1))
    plain_tokens, plain_logits = _plain(models)
    tokens, logits = _packaged(models)
    assert len(plain_logits) == len(logits) == T * BLOCKS
    for ours, theirs in zip(logits, plain_logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert plain_tokens == tokens
    assert any(not torch.equal(a.argmax(-1), b.argmax(-1)) for a, b in pairwise(logits)), "nothing happened"


def test_a_row_ends_with_the_block_that_holds_its_eos_and_the_others_go_on(models: list[SSD2]) -> None:
    terms = [plain.Term(models[0], 1.0, CORE_PROMPTS)]
    settings = plain.Settings(block_size=4, max_blocks=BLOCKS, top_p=1.0, simplex_value=5.0, timesteps=3)
    answers = plain.decode(terms, settings, plain.TorchDraws(0), NO_TOKEN)
    eos = next(token for token in answers[0][:4] if token not in answers[1][:4])
    ended = plain.decode(terms, settings, plain.TorchDraws(0), eos)
    assert ended[0] == answers[0][:4]
    assert ended[1][:4] == answers[1][:4]
    assert len(ended[1]) > 4


def test_both_parties_exchange_float32_logits() -> None:
    assert plain.bytes_per_timestep(block_size=25, vocab_size=50_272) == 10_054_400
