"""OPT's decoder layers, with the attention mask and the cached keys and values left to the caller.

Architecture: OPT (arXiv 2205.01068), pre-norm: LayerNorm, attention with biases, ReLU feed-forward.
Parameter names follow the published OPT weights, so that those load by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


class LayerCache(Protocol):
    """Keys and values of one layer's earlier positions."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the S given positions behind the earlier ones.

        Args:
            keys: [B, heads, S, D / heads].
            values: of the same shape.

        Returns:
            Keys and values of all E positions that the mask speaks of, each [B, heads, E, D / heads].
        """
        ...


class Attention(nn.Module):
    """Multi-head attention over the given positions and, before them, the cached ones."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.head_size = hidden_size // num_heads
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        """Attend.

        Args:
            hidden: [B, S, D].
            mask: bool, broadcastable to [B, heads, S, E]; True where position i sees j. None: all.
            cache: earlier positions, or None (E = S).

        Returns:
            [B, S, D].
        """
        query, keys, values = (
            projection(hidden).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            keys, values = cache.extend(keys, values)
        output: Tensor = self.out_proj(_attended(query, keys, values, mask).transpose(1, 2).flatten(-2))
        return output


def _attended(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of [B, heads, S, D / heads] to [B, heads, E, D / heads].

    A CPU under autocast attends in float32: torch's backward pass of bfloat16 attention takes seven times as long, more
    than half of a step that is else three times as fast as in float32.
    """
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            attended = F.scaled_dot_product_attention(query.float(), keys.float(), values.float(), attn_mask=mask)
        return attended.to(query.dtype)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


class DecoderLayer(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each with its residual."""

    def __init__(self, hidden_size: int, num_heads: int, ffn_size: int) -> None:
        super().__init__()
        self.self_attn = Attention(hidden_size, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, ffn_size)
        self.fc2 = nn.Linear(ffn_size, hidden_size)
        self.final_layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        """Shapes as in `Attention.forward`."""
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden), mask, cache)
        fed_forward: Tensor = self.fc2(F.relu(self.fc1(self.final_layer_norm(hidden))))
        return hidden + fed_forward


class Transformer(nn.Module):
    """A stack of decoder layers and the final LayerNorm."""

    def __init__(self, hidden_size: int, num_layers: int, num_heads: int, ffn_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(hidden_size, num_heads, ffn_size) for _ in range(num_layers))
        self.final_layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, caches: Sequence[LayerCache] | None = None) -> Tensor:
        """Run all layers.

        Args:
            hidden: input embeddings, [B, S, D].
            mask: bool, broadcastable to [B, heads, S, E]; True where position i sees j. None: all.
            caches: one a layer with its earlier positions, or None (E = S).

        Returns:
            Normalised output, [B, S, D].
        """
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, mask, caches[index] if caches else None)
        output: Tensor = self.final_layer_norm(hidden)
        return output
