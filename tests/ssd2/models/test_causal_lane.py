"""What the causal lane computes of a batch is what each answer gives alone, for every layout that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from ssd2.algorithm.block_view import BlockView
from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.autoregressive import AutoregressiveLM, NextToken
from ssd2.models.causal_lane import ON_CPU, CausalLane, PartTokens, causal_lane, numbers_per_token
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.configs import AutoregressiveConfig
from ssd2.models.lane import BlockState, NoLane, Row
from ssd2.models.precision import set_precision
from tests.core_server.engine.test_lanes import request

VOCAB, POSITIONS, SLOTS = 60, 400, 4
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCAB}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = {**SHAPE, **IDS, "intermediate_size": 32, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
TAKEN: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),
    "experts": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SHAPE, **IDS, ffn_dim=32, word_embed_proj_dim=32, max_position_embeddings=POSITIONS)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
        )
    ),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **IDS, intermediate_size=32)),
    "eager": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, attn_implementation="eager")),
    "window": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=4)),
    "gemma": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"])
    ),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "a bias by distance": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4)),
    "recurrent": lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2)),
    "hybrid": lambda: Lfm2ForCausalLM(Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"])),
    "positions of the longest": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, rope_parameters=ROPE)),
}


def model_of(make: Callable[[], Any]) -> AutoregressiveLM:
    torch.manual_seed(6)
    network = make().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return AutoregressiveLM(network, AutoregressiveConfig(vocab_size=VOCAB, max_positions=POSITIONS, **IDS))


@pytest.fixture(scope="module", params=list(TAKEN))
def model(request: pytest.FixtureRequest) -> AutoregressiveLM:
    return model_of(TAKEN[request.param])


@pytest.fixture(scope="module")
def llama() -> AutoregressiveLM:
    return model_of(TAKEN["llama"])


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    return (1, *(3 + (7 * place + 5 * seed + place * place) % (VOCAB - 3) for place in range(length - 1)))


def row(slot: int, prompt_ids: tuple[int, ...], *answer_ids: int, scope: str | None = None) -> Row:
    asked = request(prompt_ids=prompt_ids, block_size=1, timesteps=(1,))
    return Row(slot, asked, BlockState(answer_ids=answer_ids), scope)


def alone(model: AutoregressiveLM, prompt_ids: tuple[int, ...], *answer_ids: int) -> Tensor:
    """The logits of one process with one answer, that nothing was asked of before, [1, V]."""
    view = BlockView(
        block=len(answer_ids),
        step=0,
        timestep=1,
        block_size=1,
        answer_ids=torch.tensor([answer_ids], dtype=torch.int64),
        trail=(),
        noise_seeds=(7,),
        simplex_value=5.0,
    )
    return NextToken(model, [prompt_ids]).logits(view)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def compute(lane: CausalLane, rows: list[Row]) -> dict[int, Tensor]:
    """Compute rows in batches by kind, as an engine does, and return the logits by slot."""
    kinds: dict[object, list[Row]] = {}
    for one in rows:
        kinds.setdefault(lane.kind(one), []).append(one)
    return {
        one.slot: logits.clone()
        for batch in kinds.values()
        for one, logits in zip(batch, lane.logits(batch), strict=True)
    }


@pytest.mark.parametrize("slots", [(0, 1, 2), (3, 0, 1)], ids=["neighbours", "apart"])
def test_rows_of_any_lengths_are_one_batch_and_as_if_alone(model: AutoregressiveLM, slots: tuple[int, ...]) -> None:
    lane = causal_lane(model, SLOTS)
    prompts = {slot: prompt(length, slot) for slot, length in zip(slots, (1, 9, 30), strict=True)}
    answers: dict[int, tuple[int, ...]] = dict.fromkeys(slots, ())
    for turn in range(4):
        rows = [row(slot, prompts[slot], *answers[slot]) for slot in slots]
        if turn:
            assert {lane.kind(one) for one in rows} == {None}
        for slot, logits in compute(lane, rows).items():
            close(logits, alone(model, prompts[slot], *answers[slot]))
            answers[slot] += (int(logits.argmax()),)


REASONS = {
    "a bias by distance": "it does not take our masks",
    "recurrent": "it keeps something other|its layers keep more",
    "hybrid": r"its layers keep more than keys and values \(conv\)",
    "positions of the longest": "its rotary embeddings depend on the longest row",
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_networks_whose_rows_cannot_be_one_batch_have_no_lane_and_a_reason(kind: str) -> None:
    with pytest.raises(NoLane, match=REASONS[kind]):
        causal_lane(model_of(REFUSED[kind]), SLOTS)


def test_a_wrong_guess_leaves_no_trace(model: AutoregressiveLM) -> None:
    lane, asked = causal_lane(model, SLOTS), prompt(12)
    for guess in ((), (5,), (5, 6), (5, 6, 7)):
        compute(lane, [row(0, asked, *guess)])
    close(compute(lane, [row(0, asked, 5, 9)])[0], alone(model, asked, 5, 9))
    close(compute(lane, [row(0, asked, 4)])[0], alone(model, asked, 4))
    close(compute(lane, [row(0, asked, 8, 9, 3)])[0], alone(model, asked, 8, 9, 3))


def test_a_pass_that_fails_midway_leaves_no_trace(llama: AutoregressiveLM) -> None:
    def failing(*_: object) -> None:
        raise MemoryError

    lane, asked = causal_lane(llama, SLOTS), prompt(12)
    compute(lane, [row(0, asked)])
    second_layer = llama.network.model.layers[1].register_forward_pre_hook(failing)
    with pytest.raises(MemoryError):
        compute(lane, [row(0, (*asked[:4], 9, 9, 9))])
    second_layer.remove()
    close(compute(lane, [row(0, asked, 5)])[0], alone(llama, asked, 5))


def test_a_slot_is_another_answers_when_it_is_free(llama: AutoregressiveLM) -> None:
    lane = causal_lane(llama, SLOTS)
    compute(lane, [row(0, prompt(40))])
    lane.forget(0)
    assert lane.is_long(row(0, prompt(40)), beside=True)
    close(compute(lane, [row(0, prompt(5, 3))])[0], alone(llama, prompt(5, 3)))


@pytest.mark.parametrize("beside", [True, False])
def test_a_long_prompt_is_read_in_parts(model: AutoregressiveLM, beside: bool) -> None:
    lane, asked = causal_lane(model, SLOTS), prompt(350)
    most = ON_CPU.beside if beside else ON_CPU.alone
    long, parts = row(1, asked), 0
    with torch.inference_mode():
        while lane.is_long(long, beside=beside):
            lane.read(long, beside=beside)
            parts += 1
            close(
                compute(lane, [row(0, prompt(3), *range(4, 4 + parts))])[0],
                alone(model, prompt(3), *range(4, 4 + parts)),
            )
    assert parts == -(-(350 - most) // most)
    close(compute(lane, [long])[1], alone(model, asked))


def test_parts_are_smaller_behind_many_tokens_so_that_all_take_about_as_long() -> None:
    tokens = PartTokens(alone=256, beside=32, whole_to=1024)
    assert [tokens(done, beside=True) for done in (0, 1024, 2048, 4096, 100_000)] == [32, 32, 16, 8, 8]
    assert tokens(4096, beside=False) == 256


def test_a_long_prompt_need_not_be_read_before(llama: AutoregressiveLM) -> None:
    close(compute(causal_lane(llama, SLOTS), [row(1, prompt(350))])[1], alone(llama, prompt(350)))


@pytest.mark.parametrize(
    ("scope", "other", "missing"), [("a", "a", 1), ("a", "b", 31), (None, None, 31), ("a", None, 31)]
)
def test_prompts_are_shared_within_one_scope_only(
    llama: AutoregressiveLM, scope: str | None, other: str | None, missing: int
) -> None:
    lane, read = causal_lane(llama, SLOTS), []
    compute(lane, [row(0, prompt(30), scope=scope)])
    forward = llama.network.model.embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0].shape[1]))
    try:
        close(compute(lane, [row(2, (*prompt(30), 9), scope=other)])[2], alone(llama, (*prompt(30), 9)))
    finally:
        forward.remove()
    assert read[0] == missing


def test_committed_answers_are_never_shared(llama: AutoregressiveLM) -> None:
    lane, read = causal_lane(llama, SLOTS), []
    for answer in ((), (5,), (5, 6), (5, 6, 7)):
        compute(lane, [row(0, prompt(30), *answer, scope="a")])
    forward = llama.network.model.embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0].shape[1]))
    try:
        compute(lane, [row(1, (*prompt(30), 5, 6, 7, 8), scope="a")])
    finally:
        forward.remove()
    assert read == [4]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_in_fewer_bits_rows_are_as_if_alone_up_to_their_rounding(precision: str) -> None:
    model = model_of(TAKEN["llama"])
    exact = alone(model, prompt(30))
    set_precision(model, precision)
    lane, expected = causal_lane(model, SLOTS), alone(model, prompt(30))
    found = compute(lane, [row(0, prompt(30)), row(1, prompt(5))])[0]
    assert found.dtype == torch.float32
    assert (found - expected).std() < 0.03 * expected.std()
    assert 0 < (found - exact).std() < 0.2 * exact.std()
    layer = model.network.model.layers[0].mlp.up_proj.weight
    assert getattr(layer, "qdata", layer).dtype == (torch.int8 if precision == "int8" else torch.bfloat16)
    assert {held.keys.dtype for held in lane._memory} == {torch.bfloat16}


def test_numbers_that_are_not_finite_go_with_their_answer(llama: AutoregressiveLM) -> None:
    lane = causal_lane(llama, SLOTS)
    compute(lane, [row(0, prompt(20))])
    for layer in lane._memory:
        layer.keys[0] = torch.inf
        layer.values[0] = torch.nan
    lane.clear(0)
    rows = [row(0, (1,)), row(1, prompt(30))]
    compute(lane, rows)
    found = compute(lane, [row(0, (1,), 4), row(1, prompt(30), 4)])
    close(found[0], alone(llama, (1,), 4))


def test_more_than_one_token_and_more_than_the_positions_are_refused(llama: AutoregressiveLM) -> None:
    lane = causal_lane(llama, SLOTS)
    with pytest.raises(InvalidParameter, match="use 1"):
        lane.logits([Row(0, request(block_size=4), BlockState())])
    with pytest.raises(PromptTooLong, match="at most 399"):
        lane.logits([row(0, prompt(400))])


def test_slots_that_no_memory_holds_are_refused_at_the_start(llama: AutoregressiveLM) -> None:
    with pytest.raises(InvalidParameter, match="allow fewer sessions"):
        causal_lane(llama, 10**12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_slot_takes_the_memory_of_its_keys_and_values(dtype: torch.dtype) -> None:
    model = model_of(TAKEN["llama"])
    model.to(dtype)
    assert causal_lane(model, SLOTS).bytes_per_slot == 2 * 2 * 2 * 8 * POSITIONS * dtype.itemsize


def test_rows_of_smollm2_are_as_if_alone_and_its_slot_takes_what_is_reckoned(smollm2_folder: Path) -> None:
    checkpoint = load_checkpoint(smollm2_folder)
    model, encode = checkpoint.model, checkpoint.tokenizer.encode
    assert isinstance(model, AutoregressiveLM)
    texts = ("The capital of France is", "Once upon a time, in a village by the sea,", "Two plus two is")
    prompts, lane = [tuple(encode(text)) for text in texts], causal_lane(model, SLOTS)
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    for _ in range(4):
        rows = [row(slot, asked, *answers[slot]) for slot, asked in enumerate(prompts)]
        for slot, logits in compute(lane, rows).items():
            close(logits, alone(model, prompts[slot], *answers[slot]))
            answers[slot] += (int(logits.argmax()),)
    assert "Paris" in checkpoint.tokenizer.decode(list(answers[0]))
    numbers = numbers_per_token(model.network) * model.config.max_positions
    assert numbers * 4 == lane.bytes_per_slot == 2 * 30 * 3 * 64 * 8192 * 4
