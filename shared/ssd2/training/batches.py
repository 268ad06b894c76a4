"""Examples of every step, from generated text or from records, the same whenever they are read again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ssd2.demo.generator import Conversation, Item, core_items, user_conversations, user_items
from ssd2.demo.relation import text as relation
from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.configs import SSD2Config
from ssd2.models.tokenizer import Tokenizer
from ssd2.training.data import Example, encode_answered, encode_conversation, encode_item
from ssd2.training.records import DataParams, Record, read_records

POOL_BATCHES = 32
"""Batches are cut from pools of this many, sorted by length, so that little of them is padding."""

_ANSWERED: dict[str, Callable[[int], Iterable[Item | Conversation]]] = {
    "demo-core": core_items,
    "demo-user": user_items,
    "relation-core": relation.core_items,
    "relation-user": relation.user_items,
}
SOURCES = {"diffusion": _ANSWERED, "causal": {"demo-conversations": user_conversations, **_ANSWERED}}
"""Generated training text by the objective and the name that a recipe gives."""

Position = dict[str, Any]
"""Where a source has come to, as JSON can hold it."""


class ExampleSource(Protocol):
    """Examples without end, in an order that is always the same."""

    @property
    def position(self) -> Position:
        """Position at which the next `take` begins."""
        ...

    def seek(self, position: Position | None) -> None:
        """Go to an earlier `position`; None: to the beginning."""
        ...

    def take(self, count: int) -> list[Example]:
        """The next examples."""
        ...

    def held_out(self) -> list[Example]:
        """Examples that `take` never gives."""
        ...


class GeneratedExamples:
    """Examples of the demo's generators, each pool from a seed of its own."""

    def __init__(self, objective: str, name: str, *, seed: int, tokenizer: Tokenizer, config: SSD2Config) -> None:
        if name not in SOURCES[objective]:
            known = ", ".join(sorted(SOURCES[objective]))
            raise InvalidParameter(
                f"the recipe's data source is {name!r}; choose one for objective {objective!r}: {known}"
            )
        self._texts = SOURCES[objective][name]
        self._seed, self._tokenizer, self._config = seed, tokenizer, config
        self._pool = 0

    @property
    def position(self) -> Position:
        """Number of the next pool."""
        return {"pool": self._pool}

    def seek(self, position: Position | None) -> None:
        """Go to a pool."""
        self._pool = position["pool"] if position else 0

    def take(self, count: int) -> list[Example]:
        """The next pool."""
        texts = islice(self._texts(self._seed * 1_000_000 + self._pool), count)
        self._pool += 1
        return [self._encode(text) for text in texts]

    def held_out(self) -> list[Example]:
        """None: what the demo holds out are the values of its test split, which `ssd2 evaluate` asks for."""
        return []

    def _encode(self, text: Item | Conversation) -> Example:
        if isinstance(text, Item):
            return encode_item(text, self._tokenizer, self._config)
        return encode_conversation(text, self._tokenizer, self._config)


class RecordedExamples:
    """Examples out of records, pass after pass over the data.

    Plain text is packed: documents follow each other with EOS between them, cut into examples of one
    length. With the DOLLY format a record is an example; those that are too long are left out.

    Attributes:
        left_out: how many records were too long, since this object was made.
    """

    def __init__(self, data: DataParams, folder: Path, tokenizer: Tokenizer, config: SSD2Config) -> None:
        self._data, self._folder, self._tokenizer, self._config = data, folder, tokenizer, config
        self._max_length = _max_length(data, config)
        self.left_out = 0
        self.seek(None)

    @property
    def position(self) -> Position:
        """Records read in this pass over the data, and token ids read but not yet given."""
        return {"record": self._record, "packed": list(self._packed)}

    def seek(self, position: Position | None) -> None:
        """Go to a position; the records before it are read over, but not encoded."""
        position = position or {"record": 0, "packed": []}
        self._record, self._packed = position["record"], list(position["packed"])
        self._records: Iterator[Record] = read_records(self._data, self._folder, self._record)
        self._has_examples = self._record > 0  # a position within a pass comes after an example of an earlier `take`

    def take(self, count: int) -> list[Example]:
        """The next examples; the data begins anew when it ends.

        Raises:
            InvalidParameter: if a pass from the first record on has no example to train on; or as `read_records`.
        """
        examples: list[Example] = []
        while len(examples) < count:
            if found := self._cut(count - len(examples)):
                examples += found
                continue
            record = next(self._records, None)
            if record is None:
                self._begin_anew()
                continue
            self._record += 1
            if record.is_held_out(self._data.held_out):
                self._end_document()
            else:
                examples += self._encode(record)
        return examples

    def held_out(self) -> list[Example]:
        """The held-out examples of one pass, up to the limit of the data's params.

        Raises:
            InvalidParameter: if some should be held out but the data is too short for it.
        """
        if not self._data.held_out:
            return []
        reader = RecordedExamples(self._data, self._folder, self._tokenizer, self._config)
        limit, examples = self._data.held_out_limit, list[Example]()
        for record in read_records(self._data, self._folder):
            if record.is_held_out(self._data.held_out):
                examples += reader._encode(record)
                examples += reader._cut(limit)
            if len(examples) >= limit:
                break
        if not examples:
            raise InvalidParameter(
                f"the data is too short to hold out {self._data.held_out:.0%} of it; give more, or set held_out = 0"
            )
        return examples[:limit]

    def _begin_anew(self) -> None:
        if not self._has_examples:
            raise InvalidParameter(
                f"the data has no training examples of up to {self._max_length} tokens; give more text, "
                "or a larger max_length"
            )
        packed = self._packed
        self.seek(None)
        self._packed = packed

    def _encode(self, record: Record) -> list[Example]:
        """The examples that a record is on its own; plain text is added to what is packed."""
        if self._data.format == "text":
            self._has_examples = True
            self._packed += self._tokenizer.encode(record.values[0])
            self._packed += [self._config.eos_token_id] * record.is_end
            return []
        instruction, context, response = record.values
        try:
            passages = (context,) if context.strip() else ()
            example = encode_answered(instruction, passages, response, self._tokenizer, self._config)
        except PromptTooLong:
            example = None
        if example is None or len(example) > self._max_length:
            self.left_out += 1
            return []
        self._has_examples = True
        return [example]

    def _end_document(self) -> None:
        """End a document at a piece that is left out: what follows is no continuation of what came before."""
        if self._packed and self._packed[-1] != self._config.eos_token_id:
            self._packed.append(self._config.eos_token_id)

    def _cut(self, most: int) -> list[Example]:
        """Whole examples of what is packed: the token that begins every text, then text."""
        length = self._max_length // self._config.block_size * self._config.block_size
        count = min(len(self._packed) // length, most)
        texts = (tuple(self._packed[start : start + length]) for start in range(0, count * length, length))
        examples = [Example((self._config.bos_token_id,), text) for text in texts]
        del self._packed[: count * length]
        return examples


def _max_length(data: DataParams, config: SSD2Config) -> int:
    """Longest example in tokens; the token that begins packed text is not counted.

    Raises:
        InvalidParameter: if no block fits, or more is asked for than the model has positions.
    """
    longest = config.max_positions - (config.answer_position or 1) if data.format == "text" else config.max_positions
    length = longest if data.max_length is None else data.max_length
    if not config.block_size <= length <= longest:
        raise InvalidParameter(
            f"max_length {length} of [data] must be from the block size {config.block_size} to {longest}, "
            "the limit of the model's positions"
        )
    return length


class BatchSource:
    """The examples of every step: a pure function of the step, and quick to find again from a saved state."""

    def __init__(self, source: ExampleSource, batch_size: Callable[[int], int], seed: int) -> None:
        self.source = source
        self._batch_size, self._seed = batch_size, seed
        self._next_pool = 0
        self._pool: list[list[Example]] = []
        self._pool_start: Position = source.position

    def examples(self, step: int) -> list[Example]:
        """The global batch of a step."""
        index = step // POOL_BATCHES
        if index < self._next_pool - 1:
            self._next_pool = 0
            self.source.seek(None)
        while self._next_pool <= index:
            self._pool_start = self.source.position
            self._pool = self._make_pool(self._next_pool)
            self._next_pool += 1
        return self._pool[step % POOL_BATCHES]

    @property
    def state(self) -> Position:
        """Position at which the pool of the last step begins."""
        return {"pool": max(0, self._next_pool - 1), "position": self._pool_start}

    def restore(self, state: Position) -> None:
        """Go to a saved state."""
        self._next_pool, self._pool_start = state["pool"], state["position"]
        self.source.seek(self._pool_start)

    def _make_pool(self, index: int) -> list[list[Example]]:
        first = index * POOL_BATCHES
        sizes = [self._batch_size(step) for step in range(first, first + POOL_BATCHES)]
        examples = self.source.take(sum(sizes))
        rng = random.Random(self._seed * 1_000_000 + index)
        rng.shuffle(examples)
        examples.sort(key=lambda example: (len(example.answer_ids), len(example.prompt_ids)))
        order = list(range(POOL_BATCHES))
        rng.shuffle(order)
        pool: list[list[Example]] = [[] for _ in sizes]
        start = 0
        for place in order:
            pool[place] = examples[start : start + sizes[place]]
            start += sizes[place]
        return pool
