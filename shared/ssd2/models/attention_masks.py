"""What each layer of a causal network sees of a row's tokens, where that can be said by a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssd2.models.lane import NoLane

_FULL, _SLIDING = "full_attention", "sliding_attention"

_MASKED = ("sdpa", "eager")
"""Implementations of attention that take a mask of any shape."""

_ROPES_OF_THE_LONGEST = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on the longest row of a batch."""


@dataclass(frozen=True)
class Attention:
    """Masks of a network.

    Attributes:
        windows: of each type of its layers: how many tokens back it sees, itself included; None for all.
        is_added: whether masks are added to the logits of the attention, and not looked up.
        dtype: of a mask that is added.
    """

    windows: Mapping[str, int | None]
    is_added: bool
    dtype: torch.dtype

    def masks(self, index: Tensor, extent: int) -> Tensor | dict[str, Tensor]:
        """Make the masks of tokens at some places of their rows.

        Args:
            index: places, int64, [B, S].
            extent: places that are looked at, E.

        Returns:
            [B, 1, S, E], or as many by type of layer, as the network takes them.
        """
        places = torch.arange(extent, device=index.device)
        masks = {name: self._mask(places, index[:, None, :, None], window) for name, window in self.windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _mask(self, places: Tensor, index: Tensor, window: int | None) -> Tensor:
        seen = places <= index
        if window is not None:
            seen = seen & (places > index - window)
        if not self.is_added:
            return seen
        hidden = torch.finfo(self.dtype).min
        return torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill(~seen, hidden)


def attention_of(network: Any) -> Attention:
    """Find the masks of a causal network of the transformers library, by its config.

    Raises:
        NoLane: if no mask says what its layers see, or what they keep is not each token's keys and values.
    """
    from transformers.cache_utils import get_layer_types_and_kwargs

    config = network.config.get_text_config(decoder=True)
    types, options = get_layer_types_and_kwargs(config)
    if config._attn_implementation not in _MASKED:
        raise NoLane(f"its attention ({config._attn_implementation}) takes no mask of ours")
    if further := sorted(set(types) - {_FULL, _SLIDING}):
        raise NoLane(f"its layers keep more than keys and values ({', '.join(further)})")
    if _depends_on_others(config):
        raise NoLane("its rotary embeddings depend on the longest row of a batch")
    windows = {name: kind.get("sliding_window") for name, kind in zip(types, options, strict=True)}
    return Attention(windows, config._attn_implementation == "eager", network.dtype)


def _depends_on_others(config: Any) -> bool:
    """True if a row's positions depend on the batch's longest row."""
    ropes = getattr(config, "rope_parameters", None) or {}
    by_layer = [kind for kind in ropes.values() if isinstance(kind, Mapping)]
    return any(rope.get("rope_type") in _ROPES_OF_THE_LONGEST for rope in (ropes, *by_layer))
