"""A causal network cut over ranks computes what it computes whole. The ranks are threads that talk over gloo."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from ssd2.errors import InvalidParameter
from ssd2.models.autoregressive import AutoregressiveLM
from ssd2.models.causal_lane import causal_lane
from ssd2.models.causal_parallel import shard_network
from ssd2.models.checkpoint import load_checkpoint
from ssd2.models.configs import AutoregressiveConfig
from ssd2.models.precision import set_precision
from ssd2.models.shard import Shard
from tests.conftest import DEMO_TOKENIZER
from tests.ssd2.models.test_causal_lane import compute, prompt, row
from tests.ssd2.models.test_tensor_parallel import on_ranks

VOCAB, POSITIONS = 61, 64  # a vocabulary that no number of ranks divides
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 36, **IDS}
GROUPED = {**SHAPE, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
NETWORKS: dict[str, Callable[..., Any]] = {
    "llama": lambda **c: LlamaForCausalLM(LlamaConfig(**{**GROUPED, **c})),
    "biases": lambda **c: LlamaForCausalLM(LlamaConfig(**{**GROUPED, "attention_bias": True, "mlp_bias": True, **c})),
    "qwen2": lambda **c: Qwen2ForCausalLM(Qwen2Config(**{**GROUPED, "tie_word_embeddings": True, **c})),
    "qwen3": lambda **c: Qwen3ForCausalLM(Qwen3Config(**{**GROUPED, "head_dim": 16, **c})),
    "gemma": lambda **c: Gemma3ForCausalLM(
        Gemma3TextConfig(**{**GROUPED, "head_dim": 8, "sliding_window": 4, **c})
    ),  # its head is its embedding, whose rows are scaled
    "experts": lambda **c: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**{**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, **c})
    ),
    "norm over all heads": lambda **c: Olmo2ForCausalLM(Olmo2Config(**{**GROUPED, **c})),
    "one matrix for three": lambda **c: Phi3ForCausalLM(Phi3Config(**{**GROUPED, **c})),
}
PROMPTS = [prompt(length, length) for length in (3, 20, 9)]


def model_of(name: str, **changes: Any) -> AutoregressiveLM:
    torch.manual_seed(8)
    network = NETWORKS[name](**changes).eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return AutoregressiveLM(network, AutoregressiveConfig(vocab_size=VOCAB, max_positions=POSITIONS, **IDS))


def share_of(model: AutoregressiveLM, shard: Shard) -> AutoregressiveLM:
    share = deepcopy(model)
    shard_network(share, shard)
    return share


def answers(model: AutoregressiveLM, tokens: int = 6) -> tuple[list[tuple[int, ...]], list[Tensor]]:
    """Greedy answers to all prompts as one batch of the lane, and the logits of each turn."""
    lane = causal_lane(model, len(PROMPTS))
    found: list[tuple[int, ...]] = [()] * len(PROMPTS)
    seen = []
    for _ in range(tokens):
        rows = [row(slot, asked, *found[slot]) for slot, asked in enumerate(PROMPTS)]
        logits = torch.cat([one for _, one in sorted(compute(lane, rows).items())])  # [rows, V]
        seen.append(logits)
        found = [(*answer, token) for answer, token in zip(found, logits.argmax(-1).tolist(), strict=True)]
    return found, seen


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_and_logits_are_those_of_one_process(name: str) -> None:
    model = model_of(name)
    expected, logits = answers(model)
    ranks = on_ranks(2, lambda shard: answers(share_of(model, shard)))
    for found, each in ranks:
        assert found == expected
        torch.testing.assert_close(each, logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(each, ranks[0][1], atol=0, rtol=0)  # else ranks could come to decide differently
    assert len({token for answer in expected for token in answer}) > 1


def test_nine_heads_and_three_of_keys_are_cut_by_three() -> None:
    model = model_of("llama", hidden_size=36, num_attention_heads=9, num_key_value_heads=3)
    expected, _ = answers(model)
    assert [found for found, _ in on_ranks(3, lambda shard: answers(share_of(model, shard)))] == [expected] * 3


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_share_in_fewer_bits_gives_the_same_up_to_their_rounding(precision: str) -> None:
    def logits(shard: Shard) -> Tensor:
        share = share_of(model, shard)
        set_precision(share, precision)
        return answers(share, 1)[1][0]

    model = model_of("qwen3")
    whole = answers(model, 1)[1][0]
    for found in on_ranks(2, logits):
        assert 0 < (found - whole).std() < 0.03 * whole.std()


def stored(model: AutoregressiveLM) -> int:
    return sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}.values())


def test_a_rank_holds_its_share_of_weights_and_slots_and_not_the_rest() -> None:
    model = model_of("gemma", vocab_size=4000)
    lane = causal_lane(model, 4)
    shares = on_ranks(2, lambda shard: share_of(model, shard))
    assert max(map(stored, shares)) < 0.52 * stored(model)
    for slot in on_ranks(2, lambda shard: causal_lane(share_of(model, shard), 4)):
        assert slot.bytes_per_slot == lane.bytes_per_slot / 2


def test_a_share_is_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    model_of("qwen2", vocab_size=1782).network.save_pretrained(tmp_path)
    copyfile(DEMO_TOKENIZER, tmp_path / "tokenizer.json")
    whole = load_checkpoint(tmp_path)
    loaded = [load_checkpoint(tmp_path, shard=Shard(rank, 2, None)) for rank in range(2)]  # type: ignore[arg-type]
    assert [(one.sha256, one.parameters) for one in loaded] == [(whole.sha256, whole.parameters)] * 2
    networks = [one.model.network for one in (whole, *loaded)]
    first, *parts = (network.model.layers[0].mlp.up_proj.weight for network in networks)
    assert torch.equal(torch.cat(parts), first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"^4 attention heads, 2 key-value heads and a width of 36 are not divisible by 4; use one of 1, 2$"),
        (
            {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3},
            r"^9 attention heads, 3 key-value heads and a width of 36 are not divisible by 4; use one of 1, 3$",
        ),
    ],
)
def test_heads_that_do_not_divide_are_refused_with_what_would(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        shard_network(model_of("llama", **changes), Shard(0, 4, None))  # type: ignore[arg-type]


def test_a_network_without_a_plan_that_we_carry_out_is_refused() -> None:
    opt = OPTForCausalLM(
        OPTConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, **IDS)
    )
    config = AutoregressiveConfig(vocab_size=VOCAB, max_positions=POSITIONS, **IDS)
    with pytest.raises(InvalidParameter, match=r"kind opt do not .* has no plan for it; serve the model whole"):
        shard_network(AutoregressiveLM(opt, config), Shard(0, 2, None))  # type: ignore[arg-type]
    llama = model_of("llama")
    llama.network.tp_plan = {"model.layers.*.self_attn.q_proj": "colwise", "model.norm": "sequence_parallel"}
    with pytest.raises(InvalidParameter, match="its plan asks for sequence_parallel"):
        shard_network(llama, Shard(0, 2, None))  # type: ignore[arg-type]
    assert llama.network.model.layers[0].self_attn.q_proj.weight.shape == (32, 32), "nothing is cut"


def test_smollm2_on_three_ranks_says_what_it_says_on_one(smollm2_folder: Path) -> None:
    model = load_checkpoint(smollm2_folder).model
    assert isinstance(model, AutoregressiveLM)
    expected, logits = answers(model, 4)
    for found, each in on_ranks(3, lambda shard: answers(share_of(model, shard), 4)):
        assert found == expected
        torch.testing.assert_close(each, logits, atol=1e-3, rtol=1e-3)
