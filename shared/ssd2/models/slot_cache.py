"""A cache of the transformers library whose rows are slots: any of them, each as long as it is, are one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(frozen=True)
class Places:
    """Positions of a batch's new tokens in the slots.

    Attributes:
        rows: the slots, int64, [B].
        index: places of the new tokens in their slots, int64, [B, S].
        extent: places that are looked at, from the first one on.
        run: the slots as a slice, where they are neighbours in order: these are read where they lie, without a copy.
    """

    rows: Tensor
    index: Tensor
    extent: int
    run: slice | None


@dataclass(frozen=True)
class LayerMemory:
    """One layer's keys and values of all slots, each [slots, heads, places, D / heads]."""

    keys: Tensor
    values: Tensor


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # the library's __init_subclass__ has no types
    """One layer's part of the slots; the network asks for nothing but `update`, as the masks are made by us."""

    def __init__(self, memory: LayerMemory, places: Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory, self._places = memory, places
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep new keys and values, [B, heads, S, D / heads]; return those of the slots, [B, heads, E, D / heads]."""
        return self._extended(self._memory.keys, key_states), self._extended(self._memory.values, value_states)

    def _extended(self, held: Tensor, new: Tensor) -> Tensor:
        places = self._places
        held.transpose(1, 2)[places.rows[:, None], places.index] = new.transpose(1, 2)
        seen = held[:, :, : places.extent]
        return seen.index_select(0, places.rows) if places.run is None else seen[places.run]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the memory is reserved at the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many places are looked at, and the first of them."""
        return self._places.extent, 0

    def get_seq_length(self) -> int:
        """Return how many tokens the longest row has before the new ones."""
        return self._places.extent - self._places.index.shape[1]

    def get_max_length(self) -> int:
        """Return the places of a slot."""
        return int(self._memory.keys.shape[2])


class SlotCache(Cache):
    """All layers' keys and values of some slots, for one pass of the network."""

    def __init__(self, memory: Sequence[LayerMemory], places: Places) -> None:
        """Look at some slots.

        Args:
            memory: of all layers.
            places: where the new tokens stand.
        """
        super().__init__(layers=[_Layer(layer, places) for layer in memory])
