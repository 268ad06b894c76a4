"""The contexts of several decodes, encoded and kept in slots.

A context is encoded causally and never sees the block (App. A), so its keys and values serve every
timestep of a block, and every later block: what a slot holds is only ever added to. A model with a
context timestep embedding needs them anew whenever the quantised timestep changes (footnote 16).
A slot's keys and values are computed once for as many slots as begin with the same tokens, where that tells nobody
what others ask: prompts alone are shared, and only within a scope. Who sees how long an answer takes could find out
else what another user's prompt or answer begins with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ssd2.models.context import MIN_SHARED_TOKENS, NOTHING, Context
from ssd2.models.ssd2 import SSD2
from ssd2.models.transformer import DecoderLayer


# See docs/decisions/010-prompt-sharing-scopes.md.
class ContextPool:
    """Keys and values of one model's contexts, and the block that is denoised behind each."""

    def __init__(self, model: SSD2, slots: int, max_tokens: int) -> None:
        """Reserve the memory.

        Args:
            model: θ.
            slots: contexts that can be held at a time.
            max_tokens: the longest context with the block behind it.
        """
        self._model = model
        self._held = [NOTHING] * slots
        attention = cast("DecoderLayer", model.transformer.layers[0]).self_attn
        heads = attention.k_proj.weight.shape[0] // attention.head_size
        shape = (model.config.num_layers, 2, slots, max_tokens, heads, attention.head_size)
        # Zeros, as what no mask shows is still multiplied by 0.
        self._memory = torch.zeros(shape, dtype=attention.k_proj.weight.dtype, device=attention.k_proj.weight.device)

    @property
    def max_tokens(self) -> int:
        """The longest context with the block behind it."""
        return self._memory.shape[3]

    @property
    def device(self) -> torch.device:
        """Device of the model and the contexts."""
        return self._memory.device

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._model.config.vocab_size

    @property
    def bytes_per_slot(self) -> int:
        """Memory that a slot takes, used or not."""
        return self._memory.nbytes // len(self._held)

    def forget(self, slot: int) -> None:
        """Drop what a slot holds, so that nobody can find out later that it was there."""
        self._held[slot] = NOTHING

    def clear(self, slot: int) -> None:
        """Forget a slot and wipe it: keys and values that are not finite would spoil whoever has it next.

        What a mask hides is multiplied by 0, and 0 times infinity is not 0.
        """
        self.forget(slot)
        self._memory[:, :, slot] = 0

    def make_room(self, tokens: int) -> None:
        """Enlarge all slots, if they are too small for a context and a block of this many tokens together."""
        if tokens > self.max_tokens:
            before, held = self._memory.shape[:3], self.max_tokens
            larger = self._memory.new_zeros(*before, max(tokens, 2 * held), *self._memory.shape[4:])
            larger[:, :, :, :held] = self._memory
            self._memory = larger

    def hold(self, wanted: Mapping[int, Context]) -> None:
        """Make slots hold contexts, computing what none of them has yet.

        Args:
            wanted: by slot.
        """
        waiting = dict(wanted)
        while waiting:
            done = {slot: self._found(slot, context) for slot, context in self._leading(waiting).items()}
            self._encode({slot: (waiting.pop(slot), tokens) for slot, tokens in done.items()})

    def denoise(self, slots: Sequence[int], x_t: Tensor, fed_back: Tensor | None, t: Tensor) -> Tensor:
        """Logits of the blocks behind the contexts of some slots: lines 4 and 6 of Algorithm 2.

        Args:
            slots: B different ones.
            x_t: noised simplex, [B, L, V].
            fed_back: previous predictions as the model takes them in, [B, L, D]; see `SSD2.feed_back`.
            t: timesteps, [B].

        Returns:
            [B, L, V], float32, unnormalised.
        """
        return self.denoise_at(self.places(slots), self.extent(slots, x_t.shape[1]), x_t, fed_back, t)

    def places(self, slots: Sequence[int]) -> Tensor:
        """Return the places of the blocks behind the contexts of some slots.

        Returns:
            int64, [3, B]: the slots, the tokens of their contexts, the position of the first of them.
        """
        held = [self._held[slot] for slot in slots]
        return self._columns([slots, [len(c.token_ids) for c in held], [c.first_position for c in held]])[..., 0]

    def extent(self, slots: Sequence[int], block_size: int) -> int:
        """Return how far into the slots their blocks reach."""
        return max(len(self._held[slot].token_ids) for slot in slots) + block_size

    def denoise_at(self, places: Tensor, extent: int, x_t: Tensor, fed_back: Tensor | None, t: Tensor) -> Tensor:
        """`denoise` as a function of tensors alone, the same operations for any values in them.

        Args:
            places: int64, [3, B].
            extent: as far as any block reaches, or further.
            x_t: see `denoise`, like the others.
            fed_back: [B, L, D].
            t: [B].
        """
        rows, lengths, first = places[..., None]
        index = lengths + torch.arange(x_t.shape[1], device=lengths.device)
        visible = torch.arange(extent, device=lengths.device) < lengths + x_t.shape[1]
        block = self._model.embed_block(x_t, fed_back, first + index, t)
        return self._model.logits(self._run(rows[:, 0], block, index, visible[:, None]))

    def _leading(self, waiting: Mapping[int, Context]) -> dict[int, Context]:
        """Select the slots that need not wait for another one of them, to copy what both begin with."""
        leading: dict[int, Context] = {}
        for slot, context in waiting.items():
            kept = context.same_as(self._held[slot])
            if kept or all(context.shared_with(other) < MIN_SHARED_TOKENS for other in leading.values()):
                leading[slot] = context
        return leading

    def _found(self, slot: int, context: Context) -> int:
        """Count the tokens of a context that the slot holds, once an empty one has copied what another has."""
        if kept := context.same_as(self._held[slot]):
            return kept
        shared, other = context.longest_shared(self._held)
        if not shared:
            return 0
        self.forget(slot)  # at once: no other slot may copy from it what is being written over
        self._memory[:, :, slot, :shared] = self._memory[:, :, other, :shared]
        self._held[slot] = replace(context, token_ids=context.token_ids[:shared])
        return shared

    def _encode(self, contexts: Mapping[int, tuple[Context, int]]) -> None:
        """Compute keys and values of contexts by slot, each from the number on of tokens that it has."""
        missing = {slot: (c, done) for slot, (c, done) in contexts.items() if done < len(c.token_ids)}
        for slot, (context, done) in missing.items():  # all that is left if this fails halfway
            self._held[slot] = replace(context, token_ids=context.token_ids[:done])
        if missing:
            self._encode_missing(list(missing), *zip(*missing.values(), strict=True))
        for slot, (context, _) in contexts.items():
            self._held[slot] = context

    def _encode_missing(self, slots: Sequence[int], contexts: Sequence[Context], done: Sequence[int]) -> None:
        rows = [context.token_ids[start:] for context, start in zip(contexts, done, strict=True)]
        longest = max(len(row) for row in rows)
        padding = [self._model.config.pad_token_id] * longest
        token_ids = torch.tensor([(*row, *padding)[:longest] for row in rows], device=self._memory.device)
        starts, first, t = self._columns([done, [c.first_position for c in contexts], [c.timestep for c in contexts]])
        # What is padded lies behind its row's end, where nothing looks before a block is written over it.
        index = (starts + torch.arange(longest, device=starts.device)).clamp(max=self.max_tokens - 1)
        positions = (first + index).clamp(max=self._model.config.max_positions - 1)
        visible = torch.arange(min(max(done) + longest, self.max_tokens), device=index.device) <= index[:, :, None]
        hidden = self._model.embed_context(token_ids, positions, t[:, 0])
        self._run(torch.tensor(slots, device=index.device), hidden, index, visible)

    def _run(self, rows: Tensor, hidden: Tensor, index: Tensor, visible: Tensor) -> Tensor:
        """Run the network on the given places of some slots, and keep their keys and values there.

        Args:
            rows: int64, [B], the slots.
            hidden: input embeddings, [B, S, D].
            index: int64, places in the slots, [B, S].
            visible: bool, [B, S or 1, E], which of a slot's first E places each of them sees.
        """
        caches = [_SlotCache(layer[0], layer[1], rows, index, visible.shape[-1]) for layer in self._memory]
        output: Tensor = self._model.transformer(hidden, visible[:, None], caches)
        return output

    def _columns(self, values: Sequence[Sequence[int]]) -> Tensor:
        """N sequences of one number a row, as [N, B, 1], in one copy to the device."""
        return torch.tensor(values, device=self._memory.device)[..., None]


@dataclass(frozen=True)
class _SlotCache:
    """One layer's keys and values of some slots; see `ssd2.models.transformer.LayerCache`.

    Attributes:
        keys: of all slots, [slots, max_tokens, heads, D / heads].
        values: of the same shape.
        rows: int64, the slots, [B].
        index: int64, places of the given positions, [B, S].
        extent: places that are looked at.
    """

    keys: Tensor
    values: Tensor
    rows: Tensor
    index: Tensor
    extent: int

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `ssd2.models.transformer.LayerCache.extend`."""
        return self._extended(self.keys, keys), self._extended(self.values, values)

    def _extended(self, held: Tensor, new: Tensor) -> Tensor:
        held[self.rows[:, None], self.index] = new.transpose(1, 2)
        return held[:, : self.extent][self.rows].transpose(1, 2)
