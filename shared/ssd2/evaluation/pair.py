"""Two models of a collaboration, and their answers to items in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.collaboration import Timestep, decode_locally
from ssd2.algorithm.measured import of_pair
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.generator import Item
from ssd2.errors import ModelMismatch, TokenizerMismatch
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.devices import one_thread_each
from ssd2.models.predict import begin, begin_sampler, user_terms


@dataclass(frozen=True)
class Pair:
    """The two models of a collaboration."""

    core: Checkpoint
    user: Checkpoint

    def __post_init__(self) -> None:
        if self.core.vocabulary_sha256 != self.user.vocabulary_sha256:
            differ = self.core.tokenizer.difference(self.user.tokenizer) or "other special tokens"
            raise TokenizerMismatch(
                f"the two checkpoints have different vocabularies ({differ}); use a pair of one vocabulary"
            )
        if (core := self.core.model.config.family) != (user := self.user.model.config.family):
            raise ModelMismatch(
                f"the core is of the family {core!r}, the user model of {user!r}; use a pair of one family"
            )

    @classmethod
    def load(cls, core: Path, user: Path) -> Pair:
        """Load both checkpoints."""
        return cls(load_checkpoint(core), load_checkpoint(user))

    @property
    def family(self) -> str:
        """Family of both models."""
        return self.core.model.config.family

    def decoding(self, **chosen: Any) -> DecodingParams:
        """Return the decoding parameters of both models together, with the given fields changed; None keeps a field."""
        core = self.core.model.config
        return DecodingParams.for_model(core, of_pair(core.measured, self.user.model.config.measured), **chosen)


def answer_items(
    pair: Pair,
    items: Sequence[Item],
    collaboration: CollaborationParams,
    params: DecodingParams,
    seed: int,
    batch_size: int,
    on_progress: Callable[[int], None] = lambda _: None,
    logits_format: LogitsFormat = FLOAT16,
    on_timestep: Callable[[Timestep], None] = lambda _: None,
    workers: int = 1,
) -> list[str]:
    """Answer all items with one system; no answer depends on `batch_size`, the items decoded at once.

    `on_progress` is told how many answers have come since its last call, `on_timestep` as in `decode_locally`; both are
    called by one thread at a time. With more than one of `workers` that many batches are decoded side by side, each on
    one thread.
    """
    lock = threading.Lock()

    def see(timestep: Timestep) -> None:
        with lock:
            on_timestep(timestep)

    def answer(start: int) -> list[str]:
        batch = items[start : start + batch_size]
        seeds = [Seeds.reproducible(seed + start + row) for row in range(len(batch))]
        answers = answer_batch(pair, batch, collaboration, params, seeds, logits_format, see)
        with lock:
            on_progress(len(batch))
        return answers

    starts = range(0, len(items), batch_size)
    if workers == 1:
        return [text for start in starts for text in answer(start)]
    with one_thread_each(), ThreadPoolExecutor(workers) as executor:
        try:
            return [text for answers in executor.map(answer, starts) for text in answers]
        finally:  # whoever interrupts waits for the batches at work only
            executor.shutdown(wait=True, cancel_futures=True)


def answer_batch(
    pair: Pair,
    items: Sequence[Item],
    collaboration: CollaborationParams,
    params: DecodingParams,
    seeds: Sequence[Seeds],
    logits_format: LogitsFormat = FLOAT16,
    on_timestep: Callable[[Timestep], None] = lambda _: None,
) -> list[str]:
    """Answers to some items, decoded at once; the last two as in `decode_locally`."""
    tokenizer, config = pair.core.tokenizer, pair.core.model.config
    bos = config.bos_token_id
    without_docs = [tokenizer.encode_prompt(item.question, bos_token_id=bos) for item in items]
    with_docs = [tokenizer.encode_prompt(item.question, item.notes, bos_token_id=bos) for item in items]
    core = user = None
    if collaboration.uses_core:
        core = begin(pair.core.model, without_docs, params.self_conditioning)
    if collaboration.uses_user:
        user = user_terms(pair.user.model, with_docs, without_docs, collaboration, params.self_conditioning)
    answers = decode_locally(
        core,
        user,
        collaboration,
        begin_sampler(config, params, seeds),
        logits_format=logits_format,
        on_timestep=on_timestep,
    )
    return [tokenizer.decode(answer) for answer in answers]
