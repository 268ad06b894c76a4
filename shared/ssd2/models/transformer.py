"""OPT's decoder layers, with the attention mask and the cached keys and values left to the caller.

Architecture: OPT (arXiv 2205.01068), pre-norm: LayerNorm, attention with biases, ReLU feed-forward.
Parameter names follow the published OPT weights, so that those load by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, each [B, heads, C, D / heads]."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention over the given positions and, before them, the cached ones."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None) -> tuple[Tensor, LayerCache]:
        """Attend.

        Args:
            hidden: [B, S, D].
            mask: bool, broadcastable to [B, heads, S, C + S]; True where position i sees j. None: all.
            cache: keys and values of C earlier positions, or None (C = 0).

        Returns:
            The output, [B, S, D], and the keys and values of all C + S positions.
        """
        query, keys, values = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            keys = torch.cat([cache.keys, keys], dim=2)
            values = torch.cat([cache.values, values], dim=2)
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(-2)), LayerCache(keys, values)


class DecoderLayer(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each with its residual."""

    def __init__(self, hidden_size: int, num_heads: int, ffn_size: int) -> None:
        super().__init__()
        self.self_attn = Attention(hidden_size, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, ffn_size)
        self.fc2 = nn.Linear(ffn_size, hidden_size)
        self.final_layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None) -> tuple[Tensor, LayerCache]:
        """Shapes as in `Attention.forward`."""
        attended, new_cache = self.self_attn(self.self_attn_layer_norm(hidden), mask, cache)
        hidden = hidden + attended
        return hidden + self.fc2(F.relu(self.fc1(self.final_layer_norm(hidden)))), new_cache


class Transformer(nn.Module):
    """A stack of decoder layers and the final LayerNorm."""

    def __init__(self, hidden_size: int, num_layers: int, num_heads: int, ffn_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(hidden_size, num_heads, ffn_size) for _ in range(num_layers))
        self.final_layer_norm = nn.LayerNorm(hidden_size)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, cache: list[LayerCache] | None = None
    ) -> tuple[Tensor, list[LayerCache]]:
        """Run all layers.

        Args:
            hidden: input embeddings, [B, S, D].
            mask: bool, broadcastable to [B, heads, S, C + S]; True where position i sees j. None: all.
            cache: one entry a layer with the keys and values of C earlier positions, or None.

        Returns:
            Normalised output, [B, S, D], and the cache over all C + S positions.
        """
        new_cache = []
        for index, layer in enumerate(self.layers):
            hidden, layer_cache = layer(hidden, mask, cache[index] if cache else None)
            new_cache.append(layer_cache)
        return self.final_layer_norm(hidden), new_cache
