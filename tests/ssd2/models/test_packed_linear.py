"""A packed network gives the numbers of the network, up to the rounding of float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ssd2.models import packed_linear
from ssd2.models.checkpoint import load_checkpoint, load_packed
from ssd2.models.packed_linear import PackedLinear, pack_linear_layers
from tests.families import save_llama
from tests.ssd2.models.test_causal_lane import TAKEN, VOCAB, model_of

IDS = torch.tensor([[1, 9, 8, 33, 21, 5], [1, 4, 4, 7, 2, 50]]) % VOCAB


def packed_layers(network: nn.Module) -> int:
    return sum(isinstance(module, PackedLinear) for module in network.modules())


@pytest.mark.parametrize("layout", TAKEN)
@torch.inference_mode()
def test_logits_are_the_same_in_every_layout(layout: str) -> None:
    network = model_of(TAKEN[layout]).network
    expected = network(input_ids=IDS).logits
    pack_linear_layers(network)
    assert packed_layers(network) > 0
    torch.testing.assert_close(network(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_only_float32_is_packed_and_only_where_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    in_fewer_bits = model_of(TAKEN["llama"]).network.to(torch.bfloat16)
    pack_linear_layers(in_fewer_bits)
    assert packed_layers(in_fewer_bits) == 0

    def missing(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(packed_linear.PackedLinear, "__init__", missing)
    network = model_of(TAKEN["llama"]).network
    pack_linear_layers(network)
    assert packed_layers(network) == 0


def test_a_large_head_that_is_the_embeddings_too_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model_of(TAKEN["gpt2"]).network
    assert network.lm_head.weight is network.transformer.wte.weight
    monkeypatch.setattr(packed_linear, "LARGEST_COPY_BYTES", network.lm_head.weight.nbytes - 1)
    pack_linear_layers(network)
    assert type(network.lm_head) is nn.Linear


def test_a_model_that_only_answers_is_loaded_packed_and_another_is_not(tmp_path: Path, user_folder: Path) -> None:
    save_llama(tmp_path / "llama", 1782)
    assert packed_layers(load_packed(tmp_path / "llama").model)
    assert not packed_layers(load_checkpoint(tmp_path / "llama").model)
    assert not packed_layers(load_packed(user_folder).model), "its tokens are those of earlier releases"
