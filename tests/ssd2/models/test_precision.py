"""Fewer bits: logits close to those of full precision, and memory that shows it."""

from __future__ import annotations

import sys

import pytest
import torch
from conftest import block_view, experts_of, tiny_model
from torch import Tensor, nn

from ssd2.algorithm.block_view import ProjectedAt
from ssd2.algorithm.projection import ProjectedTokens
from ssd2.errors import InvalidParameter
from ssd2.models.configs import SSDLMConfig
from ssd2.models.experts import TimeRangeExperts
from ssd2.models.model import Model
from ssd2.models.precision import set_precision
from ssd2.models.predict import begin
from ssd2.models.ssd2 import SSD2


def logits(model: SSD2 | TimeRangeExperts) -> Tensor:
    core = begin(model, [[1, 5, 9], [1, 7, 8, 6, 30, 11]], "own")
    trail = (ProjectedAt(1000, (ProjectedTokens((3, 4, 5, 6)), ProjectedTokens((7, 8, 9, 10)))),)
    return core.logits(block_view(2, step=1, timestep=900, trail=trail))


def of_demo_size(seed: int = 3) -> SSD2:
    """Weights as small as trained ones: those of the other tests would be drowned in rounding."""
    model = tiny_model(seed, hidden_size=64, ffn_size=128, num_heads=4, context_timestep="quantised")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.08)
    return model


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("models", [1, 3])
def test_logits_are_close_to_those_of_full_precision(precision: str, models: int) -> None:
    model = of_demo_size() if models == 1 else experts_of(*(of_demo_size(seed) for seed in range(models)))
    expected = logits(model)
    set_precision(model, precision)
    found = logits(model)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).std() < 0.02 * expected.std()


def test_int8_holds_a_byte_a_weight_of_the_layers() -> None:
    model = of_demo_size()
    set_precision(model, "int8")
    layer = model.transformer.layers[0]
    for linear in (layer.self_attn.q_proj, layer.self_attn.out_proj, layer.fc1, layer.fc2):
        assert linear.weight.qdata.dtype == torch.int8
    assert {model.w_diff.weight.dtype, model.context_embedding.weight.dtype} == {torch.bfloat16}


def test_what_cannot_be_rounded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameter, match="float32, bfloat16, float16, int8"):
        set_precision(tiny_model(), "float8")
    other = Model()
    other.config = SSDLMConfig(vocab_size=9, max_positions=9, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with pytest.raises(InvalidParameter, match="family ssd-lm"):
        set_precision(other, "int8")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(InvalidParameter, match=r"slingshot\[int8\]"):
        set_precision(tiny_model(), "int8")
