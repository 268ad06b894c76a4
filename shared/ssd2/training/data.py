"""From text to batches: prompts padded on the left, answers filled with EOS to the block border."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from ssd2.demo.generator import Conversation, Item, core_items, user_conversations, user_items
from ssd2.errors import InvalidParameter, PromptTooLong
from ssd2.models.ssd2 import SSD2Config
from ssd2.tokenizer import Tokenizer
from ssd2.training.objective import Batch

POOL_BATCHES = 32
"""Batches are cut from pools of this many, sorted by length, so that little of them is padding."""

SOURCES: dict[str, dict[str, Callable[[int], Iterable[Item | Conversation]]]] = {
    "diffusion": {"demo-core": core_items, "demo-user": user_items},
    "causal": {"demo-conversations": user_conversations, "demo-core": core_items, "demo-user": user_items},
}
"""Training text by the objective and the name that a recipe gives."""


@dataclass(frozen=True)
class Example:
    """One prompt and its answer, which ends with EOS up to a block border (footnote 11).

    Plain text is all answer, behind an empty prompt.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


def encode_item(item: Item, tokenizer: Tokenizer, config: SSD2Config) -> Example:
    """Token ids of one item.

    Raises:
        PromptTooLong: if prompt or answer do not fit the model's positions.
    """
    prompt = tokenizer.encode_prompt(item.question, item.notes, bos_token_id=config.bos_token_id)
    answer = [*tokenizer.encode(item.answer), config.eos_token_id]
    answer += [config.eos_token_id] * (-len(answer) % config.block_size)
    if len(prompt) > config.max_prompt_tokens_before(len(answer)):
        raise PromptTooLong(
            f"an example of {len(prompt)} + {len(answer)} tokens does not fit the recipe's "
            f"max_positions {config.max_positions}"
        )
    return Example(tuple(prompt), tuple(answer))


def encode_conversation(conversation: Conversation, tokenizer: Tokenizer, config: SSD2Config) -> Example:
    """Token ids of one conversation as plain text, cut at the model's last position."""
    bos, eos = config.bos_token_id, config.eos_token_id
    token_ids: list[int] = []
    for turn, (question, answer) in enumerate(conversation.turns):
        prompt = tokenizer.encode_prompt(question, () if turn else conversation.notes, bos_token_id=bos)
        token_ids += [*prompt[bool(turn) :], *tokenizer.encode(answer), eos]
    return Example((), tuple(token_ids[: config.max_positions]))


def collate(examples: Sequence[Example], config: SSD2Config) -> Batch:
    """Pad examples into one batch."""
    prompt_length = max(len(example.prompt_ids) for example in examples)
    answer_length = max(len(example.answer_ids) for example in examples)
    pad = config.pad_token_id
    prompts = [[pad] * (prompt_length - len(e.prompt_ids)) + list(e.prompt_ids) for e in examples]
    answers = [list(e.answer_ids) + [pad] * (answer_length - len(e.answer_ids)) for e in examples]
    lengths = torch.tensor([[len(e.prompt_ids), len(e.answer_ids)] for e in examples])
    return Batch(
        prompt_ids=torch.tensor(prompts, dtype=torch.int64),
        prompt_mask=torch.arange(prompt_length) >= prompt_length - lengths[:, :1],
        answer_ids=torch.tensor(answers),
        answer_mask=torch.arange(answer_length) < lengths[:, 1:],
    )


class BatchSource:
    """Batches as a pure function of the step, so that a resumed run reads what it would have read."""

    def __init__(
        self, objective: str, name: str, *, seed: int, batch_size: int, tokenizer: Tokenizer, config: SSD2Config
    ) -> None:
        if name not in SOURCES[objective]:
            known = ", ".join(sorted(SOURCES[objective]))
            raise InvalidParameter(f"the recipe's data source is {name!r}; known for objective {objective!r}: {known}")
        self._texts = SOURCES[objective][name]
        self._seed, self._batch_size = seed, batch_size
        self._tokenizer, self._config = tokenizer, config
        self._pool_index, self._pool = -1, list[Batch]()

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        if step // POOL_BATCHES != self._pool_index:
            self._pool_index = step // POOL_BATCHES
            self._pool = self._make_pool()
        return self._pool[step % POOL_BATCHES]

    def _make_pool(self) -> list[Batch]:
        seed = self._seed * 1_000_000 + self._pool_index
        texts = islice(self._texts(seed), POOL_BATCHES * self._batch_size)
        examples = [self._encode(text) for text in texts]
        examples.sort(key=lambda example: (len(example.answer_ids), len(example.prompt_ids)))
        starts = list(range(0, len(examples), self._batch_size))
        random.Random(seed).shuffle(starts)
        return [collate(examples[start : start + self._batch_size], self._config) for start in starts]

    def _encode(self, text: Item | Conversation) -> Example:
        if isinstance(text, Item):
            return encode_item(text, self._tokenizer, self._config)
        return encode_conversation(text, self._tokenizer, self._config)
