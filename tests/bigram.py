"""A family of models in one file: tables of which token follows which, with nothing worth the name of a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssd2.algorithm.block_view import BlockView
from ssd2.algorithm.next_token import NextTokenSampler
from ssd2.models.configs import PlainConfig
from ssd2.models.lane import Graphs, Row
from ssd2.models.model import Model
from ssd2.models.prompts import check_prompts
from ssd2.models.registry import Family
from ssd2.models.tokenizer import TOKENIZER, Tokenizer

RANK = 8


class BigramLM(Model):
    """Logits of the next token, a row of a table for each token; the table is a product of two."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.config = config
        self.rows = nn.Parameter(torch.zeros(config.vocab_size, RANK))
        self.columns = nn.Parameter(torch.zeros(RANK, config.vocab_size))

    def after(self, token_ids: Sequence[int]) -> Tensor:
        """Logits behind B tokens, [B, 1, V]."""
        return (self.rows[list(token_ids)] @ self.columns)[:, None].float()


class BigramPredictor:
    """Answers the views of a decode."""

    def __init__(self, model: BigramLM, prompts: Sequence[Sequence[int]], _: str) -> None:
        check_prompts(prompts, model.config)
        self._model, self._prompts = model, prompts

    @torch.inference_mode()
    def logits(self, view: BlockView) -> Tensor:
        answers = view.answer_ids.tolist()
        return self._model.after([[*p, *a][-1] for p, a in zip(self._prompts, answers, strict=True)])


class BigramLane:
    """All rows are one batch.

    Attributes:
        batches: sizes of those that were computed, by all lanes.
    """

    batches: ClassVar[list[int]] = []

    def __init__(
        self, model: BigramLM, slots: int, *, compiled: bool = False, graphs: Callable[[Tensor], Graphs] | None = None
    ) -> None:
        self._model = model

    def kind(self, row: Row) -> Hashable:
        return row.request.block_size

    def logits(self, rows: Sequence[Row]) -> Tensor:
        self.batches.append(len(rows))
        return self._model.after([[*row.request.prompt_ids, *row.state.answer_ids][-1] for row in rows])

    def is_long(self, row: Row, *, beside: bool) -> bool:
        return False

    def read(self, row: Row, *, beside: bool) -> None:
        raise NotImplementedError

    def feed_back(self, rows: Sequence[Row], logits: Tensor) -> list[Tensor | None]:
        return [None] * len(rows)

    def forget(self, slot: int) -> None:
        pass

    def clear(self, slot: int) -> None:
        pass


def _read_config(_: Path, values: Mapping[str, Any]) -> PlainConfig:
    return PlainConfig(**{name: value for name, value in values.items() if name != "model_type"})


def _load(folder: Path, config: PlainConfig, _: torch.dtype) -> BigramLM:
    model = BigramLM(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


FAMILY = Family(
    name="bigram",
    claims=lambda _folder, values: values["model_type"] == "bigram",
    read_config=_read_config,
    read_tokenizer=lambda folder, _: Tokenizer.from_file(folder / TOKENIZER),
    load=_load,
    sampler=NextTokenSampler,
    begin=BigramPredictor,
    lane=BigramLane,
    write_config=lambda config: {
        "model_type": "bigram",
        **{name: getattr(config, name) for name in ("family", "vocab_size", "max_positions")},
        **{name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    },
)
