"""A model cut over ranks computes what it computes whole. The ranks are threads that talk over gloo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from conftest import DEMO_TOKENIZER, demo_shaped_model, experts_of, save_ssd_lm, tiny_model
from torch import Tensor
from torch import distributed as dist

from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.errors import InvalidParameter
from ssd2.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ssd2.models.context import Context
from ssd2.models.context_pool import ContextPool
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.predict import begin_sampler
from ssd2.models.ssd2 import SSD2
from ssd2.models.tensor_parallel import Shard, shard_model

_T = TypeVar("_T")


def on_ranks(ranks: int, work: Callable[[Shard], _T]) -> list[_T]:
    """What each rank's part of some work gives."""
    store = dist.HashStore()

    def run(rank: int) -> _T:
        return work(Shard(rank, ranks, dist.ProcessGroupGloo(store, rank, ranks, timedelta(seconds=20))))

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(run, range(ranks)))


def share_of(model: SSD2 | TimeRangeExperts, shard: Shard) -> SSD2 | TimeRangeExperts:
    share = deepcopy(model)
    shard_model(share, shard)
    return share


def odd_model(seed: int, **changes: object) -> SSD2:
    """Four heads, and a vocabulary that no number of ranks divides."""
    shape = {"num_heads": 4, "vocab_size": 37}
    return tiny_model(seed, **{**shape, **changes})


MODELS: dict[str, Callable[[], SSD2 | TimeRangeExperts]] = {
    "quantised": lambda: odd_model(1, context_timestep="quantised"),
    "none": lambda: odd_model(2, context_timestep="none", answer_position=20),
    "experts": lambda: experts_of(*(odd_model(seed) for seed in range(3))),
}


def logits_of(model: SSD2 | TimeRangeExperts) -> list[Tensor]:
    """Two blocks behind contexts of different lengths, at timesteps with different experts, each fed the one before."""
    found: list[Tensor] = []
    for t in (950, 700, 500):
        expert = model.at(t)
        pool = ContextPool(expert, slots=2, max_tokens=24)
        contexts = [(1, 5, 36), (1, *range(20, 33), 4)]
        pool.hold({slot: Context(ids, 0, expert.config.quantised(t)) for slot, ids in enumerate(contexts)})
        x_t = torch.randn(2, 4, expert.config.vocab_size, generator=torch.Generator().manual_seed(t))
        fed_back = expert.feed_back(found[-1]) if found else None
        found.append(pool.denoise([0, 1], x_t, fed_back, torch.tensor([t, t])))
    return found


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_logits_are_those_of_one_process(name: str, ranks: int) -> None:
    model = MODELS[name]()
    expected = logits_of(model)
    found = on_ranks(ranks, torch.inference_mode()(lambda shard: logits_of(share_of(model, shard))))
    for each in found:
        torch.testing.assert_close(each, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(each, found[0], atol=0, rtol=0)  # else the ranks could come to decide differently
    assert expected[0].abs().max() > 1


def answer(model: SSD2 | TimeRangeExperts) -> list[int]:
    params = DecodingParams(block_size=8, max_tokens=16, steps=5, stop=0.4, projection="sampling", top_p=0.8)
    core, sampler = Denoiser(model, [(1, 20, 21)], "own"), begin_sampler(model.config, params, [Seeds.reproducible(3)])
    while sampler.due:
        sampler.step(core.logits(sampler.due))
    return sampler.answers[0]


def test_answers_have_the_tokens_of_one_process() -> None:
    model = demo_shaped_model(1)
    expected = answer(model)
    assert on_ranks(2, lambda shard: answer(share_of(model, shard))) == [expected, expected]
    assert len(expected) > 8, "more than a block"


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("vocab_size", [37, 1782, 50272])
def test_the_parts_are_the_whole(vocab_size: int, ranks: int) -> None:
    parts = [Shard(rank, ranks, None).part(vocab_size) for rank in range(ranks)]  # type: ignore[arg-type]
    assert [token for part in parts for token in range(vocab_size)[part]] == list(range(vocab_size))


def sizes(models: Sequence[SSD2 | TimeRangeExperts]) -> list[int]:
    return [sum(parameter.untyped_storage().nbytes() for parameter in model.parameters()) for model in models]


def test_a_rank_holds_its_share_and_not_the_rest() -> None:
    model = tiny_model(0, vocab_size=4000, num_heads=4)
    (whole,), shares = sizes([model]), sizes(on_ranks(4, lambda shard: share_of(model, shard)))
    replicated = 4 * (50 * 16 + 2 * 16 + 2 * 16 + 5 * 2 * 16 + 2 * 2 * 16)  # positions, times, LayerNorms, biases
    assert max(shares) <= (whole - replicated) / 4 + replicated
    assert shares[0] < 0.26 * whole


def test_a_share_is_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    model = demo_shaped_model(3)
    save_checkpoint(tmp_path, model, DEMO_TOKENIZER.read_text(), torch.float16)
    whole = load_checkpoint(tmp_path)
    ids, t = torch.arange(6)[None], torch.tensor([900])

    def load(shard: Shard) -> tuple[Checkpoint, Tensor]:
        loaded = load_checkpoint(tmp_path, shard=shard)
        return loaded, loaded.model.embed_context(ids, ids, t)

    for loaded, embedded in on_ranks(2, load):
        torch.testing.assert_close(embedded, whole.model.embed_context(ids, ids, t))
        assert (loaded.sha256, loaded.parameters) == (whole.sha256, whole.parameters)
        assert loaded.model.w_diff.weight.shape == (16, 891)
        assert loaded.model.w_diff.weight.dtype == torch.float32


def test_what_does_not_divide_is_refused_with_what_would() -> None:
    model = tiny_model(0, hidden_size=24, num_heads=6, ffn_size=32)
    with pytest.raises(InvalidParameter, match=r"6 attention heads .* 32 are not divisible by 4; use one of 1, 2$"):
        shard_model(model, Shard(0, 4, None))  # type: ignore[arg-type]


def test_other_families_are_refused(tmp_path: Path) -> None:
    save_ssd_lm(tmp_path / "ssd-lm", 1)
    with pytest.raises(InvalidParameter, match=r"ssd-lm do not support tensor parallelism"):
        load_checkpoint(tmp_path / "ssd-lm", shard=Shard(0, 2, None))  # type: ignore[arg-type]
