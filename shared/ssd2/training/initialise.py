"""First weights with which a narrow model learns to read from its context.

OPT's N(0, 0.02²) is made for widths of 768 and more. At a width of 96 neither copying from a note
nor finding the right one is learned from it in thousands of steps (see docs/decisions/031-the-demo-pair.md).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ssd2.models.ssd2 import SSD2
from ssd2.models.transformer import DecoderLayer

EMBEDDING_STD = 0.1
POSITION_AMPLITUDE = 0.3
"""Larger than the embeddings, so that attention can tell places apart before it can tell tokens apart."""
POSITION_BASE = 100.0
"""Tokens a radian of the longest sinusoid; the shortest has one."""
QUERY_KEY_SCALE, VALUE_OUTPUT_SCALE, NOISE_SCALE = 1.0, 0.7, 0.5


@torch.no_grad()
def initialise_mimetic(model: SSD2) -> None:
    """Begin as trained transformers look: attention goes to what is alike, and passes it on.

    Query and key projections begin as the same orthogonal matrix, value and output as another and
    its transpose, each with noise of N(0, 1 / D); positions as sinusoids; all other matrices of the
    transformer as N(0, 1 / fan-in). Source: Trockman and Kolter 2023 (arXiv 2305.09828), but with the
    positive identity for value and output where they take the negative. The diffusion inputs stay.

    Args:
        model: as `SSD2` begins; changed in place, drawing from torch's global generator.
    """
    width = model.config.hidden_size
    nn.init.normal_(model.context_embedding.weight, std=EMBEDDING_STD)
    model.position_embedding.weight.copy_(POSITION_AMPLITUDE * _sinusoids(model.position_embedding.weight))
    for layer in cast("list[DecoderLayer]", model.transformer.layers):
        attention = layer.self_attn
        query_key, value_output = (nn.init.orthogonal_(torch.empty(width, width)) for _ in range(2))
        for projection, start in (
            (attention.q_proj, QUERY_KEY_SCALE * query_key),
            (attention.k_proj, QUERY_KEY_SCALE * query_key),
            (attention.v_proj, VALUE_OUTPUT_SCALE * value_output),
            (attention.out_proj, VALUE_OUTPUT_SCALE * value_output.T),
        ):
            projection.weight.copy_(start + NOISE_SCALE * torch.randn(width, width) / math.sqrt(width))
        for linear in (layer.fc1, layer.fc2):
            nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))


def _sinusoids(like: Tensor) -> Tensor:
    """Sine and cosine of every position at D / 2 wavelengths, [positions, D]."""
    positions, width = like.shape
    wave_numbers = POSITION_BASE ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * wave_numbers
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
