"""The lane of causal networks: answers of any lengths are one batch over slots of keys and values.

A slot holds the keys and values of token ids, and which ids these are. What an answer asks for is compared with them,
and the slot is cut back where a guess was wrong, so that logits are a function of the ids alone. A long prompt is read
part by part, between the batches of the others.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.attention_masks import Attention, attention_of
from ssd2.models.context import NOTHING, Context
from ssd2.models.graph_sizes import GraphSizes
from ssd2.models.lane import Call, Graphs, NoLane, Row

if TYPE_CHECKING:
    from ssd2.models.slot_cache import LayerMemory, Places


@dataclass(frozen=True)
class PartTokens:
    """Tokens of a prompt that are read at once on a kind of device.

    Attributes:
        alone: while there is no other answer.
        beside: while there are others, whose next tokens wait for it: in about the time of one of their batches.
        whole_to: places up to which that many are read; behind more, fewer are, as each of them looks at all places.
    """

    alone: int
    beside: int
    whole_to: int

    def __call__(self, done: int, *, beside: bool) -> int:
        """Return how many are read behind so many others."""
        return self.alone if not beside else max(_FEWEST, self.beside * self.whole_to // max(self.whole_to, done))


_FEWEST = 8
"""On a CPU core a pass with 8 tokens takes hardly longer than with 1."""

ON_CPU = PartTokens(alone=256, beside=32, whole_to=1024)
"""SmolLM2-135M, one thread: a batch of 8 tokens 76 ms, 32 of one prompt 112 ms, 8 behind 4,000 others about 125 ms."""

ON_GPU = PartTokens(alone=2048, beside=512, whole_to=32768)
"""Reckoned, not measured: a pass reads all weights, which takes as long with one token as with some hundreds."""

MAX_GRAPH_EXTENT = 4096
"""Places of the longest rows with a CUDA graph, which copies keys and values of as many: with more of them that takes
longer than the launches that it saves. Reckoned, not measured."""

_PROBES = ((3, 7, 5, 9), (8, 9, 4, 6, 7, 5, 3))
"""Token ids of two rows, by which a network is tried."""

_MOST_DIFFERENCE = 0.05
"""Between logits of a row alone and beside another, in standard deviations of the logits: rounding to bfloat16 makes
less, another mask or position more."""


class CausalLane:
    """Causal networks of the transformers library: rows that only have their newest token to be read are one batch."""

    def __init__(self, model: Any, memory: Sequence[LayerMemory], attention: Attention) -> None:
        """Serve a model; see `causal_lane`.

        Args:
            model: an `AutoregressiveLM`.
            memory: of all slots, by layer.
            attention: what each of its layers sees.
        """
        self._network, self._config, self._attention = model.network, model.config, attention
        self._memory = memory
        self._part_tokens = ON_CPU if model.network.device.type == "cpu" else ON_GPU
        self._held = [NOTHING] * len(memory[0].keys)
        self._spare = len(self._held) - 1
        self._sizes = GraphSizes(self._spare, min(model.config.max_positions, MAX_GRAPH_EXTENT))
        self._graphs: Graphs | None = None

    @property
    def places(self) -> int:
        """Return how many tokens a slot has room for."""
        return int(self._memory[0].keys.shape[2])

    @property
    def held(self) -> Sequence[Context]:
        """Return what the slots hold."""
        return tuple(self._held)

    def take_over(self, other: CausalLane) -> None:
        """Take over what another lane of the model holds, slot by slot; this one has as many, and more places."""
        for mine, theirs in zip(self._memory, other._memory, strict=True):
            mine.keys[:, :, : other.places] = theirs.keys
            mine.values[:, :, : other.places] = theirs.values
        self._held = list(other._held)

    @property
    def bytes_per_slot(self) -> int:
        """Memory that a full slot takes."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._memory) // len(self._held)

    def kind(self, row: Row) -> Hashable:
        """See `Lane.kind`: a row that has more than its newest token to read is a batch of its own."""
        return None if self.missing(row) == 1 else row.slot

    def is_long(self, row: Row, *, beside: bool) -> bool:
        """See `Lane.is_long`."""
        missing = self.missing(row)
        return missing > 1 and missing > self._part_tokens(len(self._context(row).token_ids) - missing, beside=beside)

    def read(self, row: Row, *, beside: bool) -> None:
        """See `Lane.read`."""
        context = self._checked(row)
        done = self._begin(row.slot, context)
        part = context.token_ids[done : min(done + self._part_tokens(done, beside=beside), len(context.token_ids) - 1)]
        if part:
            self._run([row.slot], [context], [done], len(part), network=self._network.base_model)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row]) -> Tensor:
        """See `Lane.logits`.

        Raises:
            InvalidParameter: if more than one token is asked for at once.
            PromptTooLong: if an answer has grown past the model's positions.
        """
        most = self._part_tokens.alone if len(rows) == 1 else 1
        contexts = [self._checked(row) for row in rows]
        for row in rows:
            while self.missing(row) > most:
                self.read(row, beside=False)
        # In the order of their slots: neighbours are read where they lie.
        order = sorted(range(len(rows)), key=lambda index: rows[index].slot)
        slots, ordered = [rows[index].slot for index in order], [contexts[index] for index in order]
        done = [self._begin(slot, context) for slot, context in zip(slots, ordered, strict=True)]
        logits = self._newest(slots, ordered, done)
        return logits if order == list(range(len(rows))) else logits[torch.tensor(order).argsort()]

    def _newest(self, slots: Sequence[int], contexts: Sequence[Context], done: Sequence[int]) -> Tensor:
        """Read what contexts have behind what their slots hold, and return the logits of their newest tokens."""
        missing, size = len(contexts[0].token_ids) - done[0], self._sizes.padded(len(slots), max(done) + 1)
        if not self._graphs or missing > 1 or size is None:
            output = self._run(slots, contexts, done, missing, network=self._network, logits_to_keep=1)
            logits: Tensor = output.logits[:, -1:].float()
            return logits
        logits = self._graphs(self._call([context.token_ids[-1] for context in contexts], slots, done, *size))
        self._note(slots, contexts, done, 1)
        self.forget(self._spare)
        return logits[: len(slots)]

    # See docs/decisions/011-cuda-graphs.md.
    @torch.inference_mode()
    def capture(self, make: Callable[[Tensor], Graphs]) -> None:
        """Make all graphs that there will be: of batches that read one token a row."""
        largest, device = self._sizes.largest_batch, self._network.device
        self._graphs = make(torch.empty(largest, 1, self._config.vocab_size, device=device))
        for batch, extent in self._sizes:
            self._graphs.capture(self._call([], [], [], batch, extent))

    def _call(self, tokens: Sequence[int], slots: Sequence[int], done: Sequence[int], batch: int, extent: int) -> Call:
        """Make the call of a batch, filled up with rows of the spare slot."""
        spares = batch - len(slots)
        values = [[*tokens, *[0] * spares], [*slots, *[self._spare] * spares], [*done, *[0] * spares]]
        token_ids, rows, starts = torch.tensor(values, device=self._network.device)
        return Call(self._step, (token_ids[:, None],), starts[:, None], rows, {"extent": extent})

    def _step(self, group: tuple[Tensor, ...], index: Tensor, rows: Tensor, *, extent: int) -> Tensor:
        """Logits of one new token of each row as a function of tensors, [B, 1, V]."""
        from ssd2.models.slot_cache import Places

        (token_ids,) = group
        output = self._passed(token_ids, Places(rows, index, extent, None), self._network, logits_to_keep=1)
        logits: Tensor = output.logits.float()
        return logits

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        """See `Lane.feed_back`: nothing is fed back."""
        return [None] * len(rows)

    def forget(self, slot: int) -> None:
        """See `Lane.forget`."""
        self._held[slot] = NOTHING

    def clear(self, slot: int) -> None:
        """See `Lane.clear`: what a mask hides is multiplied by 0, and 0 times infinity is not 0."""
        self.forget(slot)
        for layer in self._memory:
            layer.keys[slot] = 0
            layer.values[slot] = 0

    @torch.inference_mode()
    def check_exact(self) -> None:
        """Try the lane: a row beside a longer one has to give the logits that the network gives it by itself.

        Networks differ in what they make of a mask: some derive positions from it, or a bias from its length.

        Raises:
            NoLane: if it does not.
        """
        vocab_size, few = self._config.vocab_size, self._config.max_positions // 2
        rows = [Context(tuple(token % vocab_size for token in ids[:few])) for ids in _PROBES]
        done = [len(row.token_ids) - 1 for row in rows]
        alone = self._network(input_ids=torch.tensor([rows[0].token_ids], device=self._network.device), use_cache=False)
        expected = alone.logits[0, -1].float()
        try:
            for slot, (row, tokens) in enumerate(zip(rows, done, strict=True)):
                if tokens:
                    self._run([slot], [row], [0], tokens, network=self._network.base_model)
            found = self._run([0, 1], rows, done, 1, network=self._network).logits[0, -1].float()
        except Exception as error:  # a network raises what it likes at a mask or a cache that it does not take
            raise NoLane(f"it does not take our masks or our cache ({type(error).__name__})") from error
        finally:
            for slot in range(len(rows)):
                self.forget(slot)
        is_broken = not bool(expected.isfinite().all())  # the self-test says so
        most = _MOST_DIFFERENCE * expected.std().clamp(min=1e-6)
        if not is_broken and not bool((found - expected).abs().max() <= most):
            raise NoLane("a row beside another one gives other logits than alone")

    def _context(self, row: Row) -> Context:
        prompt = row.request.prompt_ids
        return Context((*prompt, *row.state.answer_ids), prompt_tokens=len(prompt), scope=row.scope)

    def _checked(self, row: Row) -> Context:
        if row.request.block_size != 1:
            raise InvalidParameter(
                f"block size is {row.request.block_size}; an autoregressive model writes one token at a time: use 1"
            )
        context, most = self._context(row), self._config.max_prompt_tokens
        if len(context.token_ids) > most:
            raise PromptTooLong(
                f"prompt and answer have {len(context.token_ids)} tokens together; this model takes at most "
                f"{most}; shorten the prompt or the answer"
            )
        return context

    def missing(self, row: Row) -> int:
        """Count the tokens that a row's logits have to read: one at least, its last."""
        context = self._context(row)
        return len(context.token_ids) - self._kept(row.slot, context)

    def _kept(self, slot: int, context: Context) -> int:
        return min(context.same_as(self._held[slot]), len(context.token_ids) - 1)

    def _begin(self, slot: int, context: Context) -> int:
        """Cut a slot back to what it shares with a context, or begin it with a copy of another; return its tokens."""
        kept = self._kept(slot, context)
        shared, other = context.longest_shared(self._held)
        if min(shared, len(context.token_ids) - 1) > kept:
            kept = min(shared, len(context.token_ids) - 1)
            self.forget(slot)  # at once: no other slot may copy from it what is being written over
            for layer in self._memory:
                layer.keys[slot, :, :kept] = layer.keys[other, :, :kept]
                layer.values[slot, :, :kept] = layer.values[other, :, :kept]
        self._held[slot] = replace(context, token_ids=context.token_ids[:kept])
        return kept

    def _run(
        self,
        slots: Sequence[int],
        contexts: Sequence[Context],
        done: Sequence[int],
        tokens: int,
        *,
        network: Any,
        **options: Any,
    ) -> Any:
        """Read as many tokens of each context, from the number on that its slot has, and note that it has them."""
        device = self._network.device
        parts = [c.token_ids[start : start + tokens] for c, start in zip(contexts, done, strict=True)]
        places = _places(slots, done, tokens, device)
        output = self._passed(torch.tensor(parts, device=device), places, network, **options)
        self._note(slots, contexts, done, tokens)
        return output

    def _passed(self, token_ids: Tensor, places: Places, network: Any, **options: Any) -> Any:
        from ssd2.models.slot_cache import SlotCache  # takes transformers, which other families need not have

        return network(
            input_ids=token_ids,
            attention_mask=self._attention.masks(places.index, places.extent),
            position_ids=places.index,
            past_key_values=SlotCache(self._memory, places),
            use_cache=True,
            **options,
        )

    def _note(self, slots: Sequence[int], contexts: Sequence[Context], done: Sequence[int], tokens: int) -> None:
        """Note that slots hold so many more tokens of their contexts."""
        for slot, context, start in zip(slots, contexts, done, strict=True):
            self._held[slot] = replace(context, token_ids=context.token_ids[: start + tokens])


def causal_lane(
    model: Any, slots: int, *, compiled: bool = False, graphs: Callable[[Tensor], Graphs] | None = None
) -> CausalLane:
    """Make the lane of a causal network; see `MakeLane`.

    Raises:
        NoLane: if rows of the network cannot be one batch: it keeps something else than keys and values, its attention
            takes no mask of ours, or a row's numbers depend on its neighbours.
        InvalidParameter: if there is no memory for so many slots.
    """
    make = lane_maker(model)
    lane = make(slots + 1, model.config.max_positions)
    # The library's own word for a network without steps that wait for the device, which no graph can hold.
    if graphs and model.network._can_compile_fullgraph:
        lane.capture(graphs)
    return lane


def lane_maker(model: Any) -> Callable[[int, int], CausalLane]:
    """Try whether rows of a causal network can be one batch.

    Returns:
        Makes a lane, given slots and places in each; raises InvalidParameter if there is no memory for them.

    Raises:
        NoLane: see `causal_lane`.
    """
    attention, made = attention_of(model.network), _first_keys_and_values(model.network)

    def make(slots: int, places: int) -> CausalLane:
        return CausalLane(model, _reserved(made, slots, places), attention)

    make(len(_PROBES), max(map(len, _PROBES))).check_exact()
    return make


def numbers_per_token(network: Any) -> int:
    """Count the keys and values that a network's layers keep of a token, without weights; 0 if it has no lane."""
    try:
        attention_of(network)
        return sum(one.numel() for layer in _first_keys_and_values(network) for one in layer)
    except NoLane:
        return 0


@torch.inference_mode()
def _first_keys_and_values(network: Any) -> list[tuple[Tensor, Tensor]]:
    """Have every layer make the keys and values of one token, [1, heads, 1, D / heads].

    Raises:
        NoLane: if it makes something else.
    """
    output = network(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=network.device), use_cache=True)
    try:
        return [(layer.keys[:, :, :1], layer.values[:, :, :1]) for layer in output.past_key_values.layers]
    except (AttributeError, TypeError) as error:  # a cache of another kind, whatever the config says
        raise NoLane("it keeps something other than each token's keys and values") from error


def _places(slots: Sequence[int], done: Sequence[int], tokens: int, device: torch.device) -> Places:
    from ssd2.models.slot_cache import Places

    rows, starts = torch.tensor([slots, done], device=device)
    index = starts[:, None] + torch.arange(tokens, device=device)
    is_run = list(slots) == list(range(slots[0], slots[0] + len(slots)))
    run = slice(slots[0], slots[0] + len(slots)) if is_run else None
    return Places(rows, index, max(done) + tokens, run)


def _reserved(made: Sequence[tuple[Tensor, Tensor]], slots: int, positions: int) -> list[LayerMemory]:
    """Reserve every layer's keys and values, of the shapes that the network makes."""
    from ssd2.models.slot_cache import LayerMemory

    try:
        return [LayerMemory(*(_zeros(slots, positions, one) for one in layer)) for layer in made]
    except (OSError, RuntimeError) as error:  # mmap's and torch's own
        needed = sum(one.nbytes for layer in made for one in layer) * slots * positions
        raise InvalidParameter(
            f"there is no memory for {slots} contexts of {positions} tokens ({needed / 1e9:.1f} GB); allow "
            "fewer sessions",
            parameter="max_sessions",
        ) from error


def _zeros(slots: int, positions: int, one: Tensor) -> Tensor:
    """Zeros for one layer's keys or values, [slots, heads, positions, D / heads]; zeros, as masked ones count as 0.

    On a CPU they take memory as they are written: few answers are as long as the model's positions.
    """
    shape = (slots, one.shape[1], positions, one.shape[3])
    if one.device.type != "cpu":
        return torch.zeros(shape, dtype=one.dtype, device=one.device)
    size = slots * positions * one.shape[1] * one.shape[3]
    pages = mmap.mmap(-1, size * one.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=one.dtype, count=size).view(shape)
