"""The first weights of narrow models: attention goes to what is alike, and passes it on."""

from __future__ import annotations

import torch
from conftest import tiny_config

from ssd2.models.ssd2 import SSD2
from ssd2.training.initialise import POSITION_AMPLITUDE, initialise_mimetic

WIDTH = 96


def mimetic() -> SSD2:
    torch.manual_seed(0)
    model = SSD2(tiny_config(hidden_size=WIDTH, num_heads=6, ffn_size=320, max_positions=160))
    initialise_mimetic(model)
    return model


def test_a_query_is_most_like_its_own_key_and_returns_its_value() -> None:
    vectors = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1))
    for layer in mimetic().transformer.layers:
        attention = layer.self_attn
        scores = attention.q_proj(vectors) @ attention.k_proj(vectors).T
        assert (scores.argmax(-1) == torch.arange(200)).float().mean() > 0.95
        passed_on = attention.out_proj(attention.v_proj(vectors))
        assert torch.cosine_similarity(passed_on, vectors, dim=-1).min() > 0.3


def test_positions_are_alike_by_their_distance_alone_and_nearer_ones_more() -> None:
    positions = mimetic().position_embedding.weight
    products = positions @ positions.T
    for distance in (0, 1, 5, 30):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-3, rtol=1e-3)
    assert products[80, 80] > products[80, 81] > products[80, 85]
    torch.testing.assert_close(products[0, 0], torch.tensor(POSITION_AMPLITUDE**2 * WIDTH / 2))


def test_signals_keep_their_size_through_the_feed_forward_layers() -> None:
    layer = mimetic().transformer.layers[0]
    unit = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(2))
    assert 0.8 < layer.fc1(unit).std() < 1.2
    assert 0.4 < layer.fc2(torch.relu(layer.fc1(unit))).std() < 1.0


def test_the_diffusion_inputs_and_biases_begin_as_in_any_ssd2() -> None:
    model = mimetic()
    assert model.w_pred.weight.abs().max() == 0
    assert 0.015 < model.w_diff.weight.std() < 0.025
    assert all(p.abs().max() == 0 for name, p in model.named_parameters() if name.endswith("bias"))
