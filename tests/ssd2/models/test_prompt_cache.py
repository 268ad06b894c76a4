"""The prompt cache changes no token, stays within its bounds, and forgets when told to."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
import torch
from torch import Tensor

from ssd2.algorithm.collaboration import UserTerms
from ssd2.errors import InvalidParameter, PromptTooLong, TooLittleMemory
from ssd2.models import prompt_cache
from ssd2.models.autoregressive import AutoregressiveLM, NextToken
from ssd2.models.causal_lane import CausalLane
from ssd2.models.prompt_cache import NOT_KEPT, CachedDecode, PromptCache
from tests.conftest import block_view
from tests.ssd2.models.test_causal_lane import REFUSED, TAKEN, model_of

DOCUMENT = [1, *(5 + number * 7 % 50 for number in range(60))]
QUESTION, OTHER = [9, 8, 11, 4], [9, 21, 33, 6, 5]
PROMPTS = [[*DOCUMENT, *QUESTION], [1, *QUESTION]]
LATER = [[*DOCUMENT, *OTHER], [1, *OTHER]]
ENOUGH = 10**9


@pytest.fixture
def model() -> AutoregressiveLM:
    return model_of(TAKEN["llama"])


def decoded(predictor: Any, tokens: int = 6) -> list[list[int]]:
    """Greedy answers of all rows."""
    answers = torch.empty(2, 0, dtype=torch.int64)
    for _ in range(tokens):
        logits: Tensor = predictor.logits(block_view(2, block_size=1, answer_ids=answers))
        answers = torch.cat([answers, logits.argmax(-1)], -1)
    return answers.tolist()


def asked(cache: PromptCache, prompts: list[list[int]]) -> list[list[int]]:
    decode = cache.begin(prompts)
    try:
        return decoded(decode)
    finally:
        decode.close()


class Reads:
    """Counts the tokens that a lane's network reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        run = CausalLane._run

        def counted(lane: CausalLane, slots: Any, contexts: Any, done: Any, tokens: int, **options: Any) -> Any:
            self.tokens += tokens * len(slots)
            return run(lane, slots, contexts, done, tokens, **options)

        monkeypatch.setattr(CausalLane, "_run", counted)

    def taken(self) -> int:
        tokens, self.tokens = self.tokens, 0
        return tokens


@pytest.mark.parametrize("layout", TAKEN)
def test_tokens_are_those_without_a_cache_whatever_was_kept(layout: str) -> None:
    model = model_of(TAKEN[layout])
    cache = PromptCache(model, ENOUGH)
    for prompts in (PROMPTS, LATER, PROMPTS, PROMPTS, [PROMPTS[1], PROMPTS[0]]):
        assert asked(cache, prompts) == decoded(NextToken(model, prompts))


def test_a_second_question_about_a_document_reads_only_what_is_new(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, reads = PromptCache(model, ENOUGH), Reads(monkeypatch)
    asked(cache, PROMPTS)
    assert reads.taken() >= len(DOCUMENT)
    asked(cache, LATER)
    assert reads.taken() <= len(OTHER) * 2 + 6 * 2, "the other question, twice, and the answers"
    asked(cache, LATER)
    assert reads.taken() <= 6 * 2, "the same question again: the answers alone"


def test_rows_of_a_decode_share_what_their_prompts_begin_with(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, reads = PromptCache(model, ENOUGH), Reads(monkeypatch)
    cache.begin([[*DOCUMENT, 7, 8], [*DOCUMENT, 8]]).logits(block_view(2, block_size=1))
    assert reads.taken() < len(DOCUMENT) + 8


def test_an_unrelated_prompt_does_not_cost_what_is_kept(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, reads = PromptCache(model, ENOUGH), Reads(monkeypatch)
    asked(cache, PROMPTS)
    asked(cache, [[*DOCUMENT[:12], 30, 31], [1, 30, 31]])  # a system prompt is the same
    reads.taken()
    asked(cache, PROMPTS)
    assert reads.taken() <= 6 * 2


def test_the_least_recently_used_goes_where_there_are_too_many_bytes(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PromptCache(model, ENOUGH)
    asked(cache, PROMPTS)
    one = cache.bytes
    cache, reads = PromptCache(model, 2 * one), Reads(monkeypatch)
    others = [[[1, start, *DOCUMENT[20:]], [1, start]] for start in (40, 41)]
    for prompts in (PROMPTS, others[0], PROMPTS, others[1]):
        asked(cache, prompts)
        assert cache.bytes <= 2 * one
    reads.taken()
    asked(cache, PROMPTS)
    assert reads.taken() <= 6 * 2
    asked(cache, others[0])
    assert reads.taken() > 40
    none = PromptCache(model, 0)
    asked(none, PROMPTS)
    assert none.bytes == 0


def memories(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """All keys and values that are reserved from now on."""
    made: list[Tensor] = []
    init = CausalLane.__init__

    def noting(lane: CausalLane, model: Any, memory: Any, attention: Any) -> None:
        made.extend(tensor for layer in memory for tensor in (layer.keys, layer.values))
        init(lane, model, memory, attention)

    monkeypatch.setattr(CausalLane, "__init__", noting)
    return made


def test_what_is_forgotten_is_wiped(model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PromptCache(model, ENOUGH)
    made = memories(monkeypatch)
    asked(cache, PROMPTS)
    assert all(bool(tensor.any()) for tensor in made)
    cache.forget()
    assert cache.bytes == 0
    assert not any(bool(tensor.any()) for tensor in made)


def test_a_decode_that_was_begun_before_is_forgotten_at_its_end(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PromptCache(model, ENOUGH)
    made = memories(monkeypatch)
    decode = cache.begin(PROMPTS)
    before = decoded(decode)
    cache.forget()
    assert decoded(decode) == before, "the answer itself goes on"
    decode.close()
    assert cache.bytes == 0
    assert not any(bool(tensor.any()) for tensor in made)


@pytest.mark.parametrize("is_asked_again", [True, False])
def test_prompts_made_before_everything_was_forgotten_are_not_kept(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch, is_asked_again: bool
) -> None:
    cache = PromptCache(model, ENOUGH)
    made = memories(monkeypatch)
    era = cache.era if is_asked_again else NOT_KEPT
    cache.forget()
    decode = cache.begin(PROMPTS, era=era)
    assert decoded(decode) == decoded(NextToken(model, PROMPTS))
    decode.close()
    assert cache.bytes == 0
    assert not any(bool(tensor.any()) for tensor in made)
    assert cache.era is not PromptCache(model, ENOUGH).era, "nor in the cache of another model"


def test_a_decode_closed_while_it_ends_a_timestep_is_given_back(model: AutoregressiveLM) -> None:
    """The one who closes finds the decode at work, and the one at work is past its last look."""
    cache = PromptCache(model, ENOUGH)
    decode = cache.begin(PROMPTS)

    class Lock:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.acquire = self.lock.acquire

        def release(self) -> None:
            decode.close()
            self.lock.release()

        def __enter__(self) -> None:
            self.acquire()

        def __exit__(self, *_: object) -> None:
            self.release()

    decode._at_work = Lock()  # type: ignore[assignment]
    decode.logits(block_view(2, block_size=1))
    assert cache.bytes > 0


def test_what_was_not_used_for_long_is_forgotten(model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(prompt_cache.time, "monotonic", lambda: now[0])
    cache = PromptCache(model, ENOUGH)
    asked(cache, PROMPTS)
    now[0] += 10
    assert cache.forget_unused(20) == 10, "seconds until it is due"
    assert cache.bytes > 0
    now[0] += 10
    assert cache.forget_unused(20) is None
    assert cache.bytes == 0


def test_two_decodes_at_once_do_not_disturb_each_other(model: AutoregressiveLM) -> None:
    cache = PromptCache(model, ENOUGH)
    asked(cache, PROMPTS)
    one, two = cache.begin(PROMPTS), cache.begin(PROMPTS)
    first = one.logits(block_view(2, block_size=1))
    assert decoded(two) == decoded(NextToken(model, PROMPTS))
    assert torch.equal(one.logits(block_view(2, block_size=1)), first)
    assert decoded(one) == decoded(NextToken(model, PROMPTS))


def test_an_answer_that_outgrows_what_was_reserved_goes_on(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "PLACES_STEP", 66)
    cache = PromptCache(model, ENOUGH)
    made, reads = memories(monkeypatch), Reads(monkeypatch)
    assert decoded(cache.begin(PROMPTS)) == decoded(NextToken(model, PROMPTS))
    assert {tensor.shape[2] for tensor in made} == {66, 132}
    assert reads.taken() <= sum(map(len, PROMPTS)) + 6 * 2, "nothing is read twice"


def test_what_cannot_grow_for_want_of_memory_is_still_kept(
    model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "PLACES_STEP", 66)
    cache = PromptCache(model, ENOUGH)
    asked(cache, PROMPTS)
    kept, reads = cache.bytes, Reads(monkeypatch)

    def full(*_: object) -> None:
        raise InvalidParameter("there is no memory")

    monkeypatch.setattr(cache, "_make", full)
    with pytest.raises(TooLittleMemory):
        asked(cache, [[*DOCUMENT, *DOCUMENT, *DOCUMENT], PROMPTS[1]])
    assert cache.bytes == kept
    asked(cache, PROMPTS)
    assert reads.taken() <= 6 * 2


def closing_at(reads: int, told: list[tuple[int, int]]) -> Any:
    """Have a decode closed, by another thread, as soon as so many parts are read."""
    decodes: list[CachedDecode] = []

    def on_read(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == reads:
            closer = threading.Thread(target=decodes[0].close)
            closer.start()
            closer.join()

    return decodes, on_read


def test_a_long_prompt_is_told_part_by_part_and_can_be_stopped_between_two(model: AutoregressiveLM) -> None:
    long = [[1, *(5 + number % 50 for number in range(390))], [1, *QUESTION]]
    told: list[tuple[int, int]] = []
    cache = PromptCache(model, ENOUGH)
    cache.begin(long, lambda *read: told.append(read)).logits(block_view(2, block_size=1))
    assert told[0] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1] == 390 + len(QUESTION)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) >= 3

    told = []
    decodes, on_read = closing_at(2, told)
    decodes.append(cache.begin(long, on_read))
    with pytest.raises(CancelledError):
        decodes[0].logits(block_view(2, block_size=1))
    assert len(told) == 2
    assert cache.bytes > 0, "what was read is kept, and the decode has let go of it"


def test_a_short_prompt_is_not_told(model: AutoregressiveLM) -> None:
    told: list[tuple[int, int]] = []
    cache = PromptCache(model, ENOUGH)
    cache.begin(PROMPTS, lambda *read: told.append(read)).logits(block_view(2, block_size=1))
    assert told == []


def test_terms_close_what_they_decode_with(model: AutoregressiveLM) -> None:
    cache = PromptCache(model, ENOUGH)
    decode = cache.begin(PROMPTS)
    terms = UserTerms(decode, 2)
    terms.logits(block_view(1, block_size=1))
    assert cache.bytes == 0
    terms.close()
    terms.close()
    assert cache.bytes > 0
    UserTerms(NextToken(model, PROMPTS), 2).close()


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_whose_rows_cannot_be_one_batch_has_none(name: str) -> None:
    assert not PromptCache(model_of(REFUSED[name]), ENOUGH).is_usable


def test_bad_prompts_and_too_little_memory_are_named(model: AutoregressiveLM, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PromptCache(model, ENOUGH)
    with pytest.raises(PromptTooLong):
        cache.begin([[1] * 401, [1]])
    with pytest.raises(InvalidParameter):
        cache.begin([[], [1]])
    with pytest.raises(InvalidParameter, match="one token at a time"):
        cache.begin(PROMPTS).logits(block_view(2, block_size=4))

    def full(*_: object) -> None:
        raise InvalidParameter("there is no memory")

    monkeypatch.setattr(cache, "_make", full)
    with pytest.raises(TooLittleMemory, match="close other programs"):
        cache.begin(PROMPTS).logits(block_view(2, block_size=1))
