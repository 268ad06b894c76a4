"""One model's part in a decode: what it caches and what it feeds back must not show in its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import experts_of, plain_logits, tiny_model
from torch import Tensor

from ssd2.algorithm.params import DecodingParams, Seeds
from ssd2.algorithm.sampler import LogitsRequest, decode
from ssd2.errors import InvalidParameter, PromptTooLong, TokenOutOfRange
from ssd2.models.denoiser import Denoiser
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.ssd2 import SSD2

PROMPTS = [[1, 5, 9], [1, 7, 8, 6, 30, 11], [1]]
PARAMS = DecodingParams(
    block_size=4, max_tokens=12, steps=18, stop=0.4, top_p=0.9
)  # some buckets of Q = 50 hold two of 18
SEEDS = [Seeds(row, 50 + row) for row in range(len(PROMPTS))]
NO_EOS = -1


def from_scratch(model: SSD2 | TimeRangeExperts, request: LogitsRequest, self_cond: Tensor | None, row: int) -> Tensor:
    """Logits of one row alone, its whole context encoded anew."""
    position = model.config.answer_position
    return plain_logits(
        model.at(request.timestep),
        torch.tensor([*PROMPTS[row], *request.answer_ids[row].tolist()]),
        position - len(PROMPTS[row]) if position else 0,
        request.x_t[row],
        None if self_cond is None else self_cond[row],
        request.timestep,
    )


def other_logits(request: LogitsRequest) -> Tensor:
    """The other model's share of the mix: anything that is not the denoiser's own."""
    return torch.sin(3 * request.x_t)


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
    run = decode(PARAMS, SEEDS, vocab_size=32, eos_token_id=NO_EOS)
    request, previous, requests = next(run), None, 0
    try:
        while True:
            requests += 1
            fed_back = {"own": previous, "projection": request.x0_hat, "mixed": request.mixed_logits}
            self_cond = None if request.step == 0 else fed_back[self_conditioning]
            previous = denoiser.logits(request)
            for row in range(len(PROMPTS)):
                expected = from_scratch(model, request, self_cond, row)
                torch.testing.assert_close(previous[row], expected, atol=1e-4, rtol=1e-4)
            request = run.send((previous + other_logits(request)) / 2)
    except StopIteration:
        assert requests == 3 * 18


def test_the_three_ways_of_feeding_back_differ() -> None:
    model = tiny_model(3)
    place: dict[str, Any] = {"block": 0, "timestep": 900, "answer_ids": torch.empty(1, 0, dtype=torch.int64)}
    x_t, x0_hat, mixed_logits = (torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(i)) for i in range(3))
    first = LogitsRequest(step=0, x_t=x_t, x0_hat=None, mixed_logits=None, **place)
    second = LogitsRequest(step=1, x_t=x_t, x0_hat=x0_hat, mixed_logits=mixed_logits, **place)
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


def test_a_timestep_asked_for_again_takes_in_the_prediction_before_it() -> None:
    denoiser = Denoiser(tiny_model(3), [[1, 4]], "own")
    x_t = [torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    nothing = torch.empty(1, 0, dtype=torch.int64)

    def asked(step: int, seen: Tensor) -> Tensor:
        return denoiser.logits(LogitsRequest(0, step, 900 - step, seen, None, None, nothing))

    asked(0, x_t[0])
    expected = asked(1, x_t[1])
    asked(1, x_t[2])
    assert torch.equal(asked(1, x_t[1]), expected)
    asked(2, x_t[3])
    with pytest.raises(ValueError, match="timestep 1 of block 0"):
        asked(1, x_t[1])


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
    run = decode(PARAMS, SEEDS[:1], vocab_size=32, eos_token_id=NO_EOS)
    request = next(run)
    try:
        while True:
            request = run.send(denoiser.logits(request))
    except StopIteration:
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
    request = LogitsRequest(0, 0, 1000, torch.zeros(1, 4, 32), None, None, torch.empty(1, 0, dtype=torch.int64))
    assert Denoiser(model, [[1] * 44], "own").logits(request).isfinite().all()


@pytest.mark.parametrize("token_id", [32, -1])
def test_a_prompt_of_another_vocabulary_is_refused(token_id: int) -> None:
    with pytest.raises(TokenOutOfRange, match="vocabulary of 32"):
        Denoiser(tiny_model(), [[1, token_id]], "own")
