"""From text to batches: prompts padded on the left, answers filled with EOS to the block border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd2.demo.generator import Conversation, Item
from ssd2.errors import PromptTooLong
from ssd2.models.configs import SSD2Config
from ssd2.models.tokenizer import Tokenizer
from ssd2.training.objective import Batch


@dataclass(frozen=True)
class Example:
    """One prompt and its answer, which ends with EOS up to a block border (footnote 11).

    Plain text is all answer, behind an empty prompt or the token that begins every text.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


def encode_answered(
    instruction: str, passages: Sequence[str], answer: str, tokenizer: Tokenizer, config: SSD2Config
) -> Example:
    """Token ids of an instruction with its answer.

    Raises:
        PromptTooLong: if prompt or answer do not fit the model's positions.
    """
    prompt = tokenizer.encode_prompt(instruction, passages, bos_token_id=config.bos_token_id)
    answer_ids = [*tokenizer.encode(answer), config.eos_token_id]
    answer_ids += [config.eos_token_id] * (-len(answer_ids) % config.block_size)
    if len(prompt) > config.max_prompt_tokens_before(len(answer_ids)):
        raise PromptTooLong(
            f"an example of {len(prompt)} + {len(answer_ids)} tokens does not fit the recipe's "
            f"max_positions {config.max_positions}"
        )
    return Example(tuple(prompt), tuple(answer_ids))


def encode_item(item: Item, tokenizer: Tokenizer, config: SSD2Config) -> Example:
    """Token ids of one generated item; errors as in `encode_answered`."""
    return encode_answered(item.question, item.notes, item.answer, tokenizer, config)


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
