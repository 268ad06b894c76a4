"""Prompt layouts: which one a small model answers everyday questions best with, given the right note.

The notes and questions (prompts.json) are others than those of `ssd2 evaluate documents`, so that the layout can be
chosen here and measured there. Greedy, in bfloat16. An answer is right if one of the accepted spellings stands in it.

    right  of the questions about documents, of public ones beside an irrelevant note, and of two-source ones
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ssd2.algorithm.collaboration import decode_locally
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.models.chat import BRIEFLY, Message
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.pairs import EMBEDDED, downloaded_folder, pair_named
from ssd2.models.predict import begin_sampler, user_terms
from tests.bench.progress import say

Layout: TypeAlias = Callable[[Checkpoint, str, str], list[int]]
"""Prompt of a question and its note, as ids."""

BATCH = 8
ALONE = CollaborationParams(1.0, 0.0)


def run(*, user: Path | None, max_tokens: int, limit: int) -> Iterator[dict[str, object]]:
    """Answer the questions in each layout.

    Args:
        user: folder of a model with a chat template; None for the embedded pair's.
        max_tokens: longest answer.
        limit: questions of each kind.
    """
    checkpoint = load_checkpoint(user or downloaded_folder(pair_named(EMBEDDED), "user"), precision="bfloat16")
    data = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    of_kind: Counter[str] = Counter()
    questions = []
    for question in data["questions"]:
        of_kind[question["kind"]] += 1
        if of_kind[question["kind"]] <= limit:
            questions.append({**question, "note": data["documents"].get(question["note"], question["note"])})
    for name, layout in LAYOUTS.items():
        say(f"prompts: {name}")
        started = time.perf_counter()
        texts = _answers(checkpoint, [layout(checkpoint, q["text"], q["note"]) for q in questions], max_tokens)
        right: Counter[str] = Counter()
        for question, text in zip(questions, texts, strict=True):
            right[question["kind"]] += is_right(text, question["accepted"])
        asked = Counter(question["kind"] for question in questions)
        shares = {kind: f"{right[kind]} of {number}" for kind, number in asked.items()}
        yield {"layout": name, "right": shares, "seconds": round(time.perf_counter() - started, 1)}


def is_right(text: str, accepted: Sequence[str]) -> bool:
    """True if one of the spellings stands in a text, as words of their own."""
    return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text, re.IGNORECASE) for one in accepted)


def _answers(checkpoint: Checkpoint, prompts: Sequence[list[int]], max_tokens: int) -> list[str]:
    params = DecodingParams.for_model(checkpoint.model.config, projection="greedy", max_tokens=max_tokens)
    texts = []
    for start in range(0, len(prompts), BATCH):
        batch = list(prompts[start : start + BATCH])
        terms = user_terms(checkpoint.model, batch, batch, ALONE, params.self_conditioning)
        sampler = begin_sampler(checkpoint.model.config, params, [Seeds.reproducible(0)] * len(batch))
        texts += [checkpoint.tokenizer.decode(ids) for ids in decode_locally(None, terms, ALONE, sampler)]
    return texts


def _messages(system: str, asked: str) -> Layout:
    def layout(checkpoint: Checkpoint, question: str, note: str) -> list[int]:
        said = [
            (role, text.format(note=note, question=question)) for role, text in (("system", system), ("user", asked))
        ]
        messages = [Message(role, text) for role, text in said if text]
        return checkpoint.tokenizer.encode_conversation(messages, bos_token_id=checkpoint.model.config.bos_token_id)

    return layout


LAYOUTS: dict[str, Layout] = {
    "notes, question": _messages("", "Use these notes:\n\n{note}\n\n{question}"),
    "short sentence; notes, question": _messages(BRIEFLY, "Notes:\n{note}\n\nQuestion: {question}"),
    "briefly; notes, question": _messages("Answer briefly.", "Notes:\n{note}\n\nQuestion: {question}"),
    "question, notes, question": _messages("", "{question}\n\n{note}\n\n{question}"),
    "notes as system prompt": _messages("Notes of the user:\n\n{note}", "{question}"),
    "briefly and notes as system prompt": _messages("Answer briefly.\n\nNotes of the user:\n\n{note}", "{question}"),
    "the agent's": lambda checkpoint, question, note: checkpoint.tokenizer.encode_conversation(
        [Message("system", BRIEFLY), Message("user", question)],
        [note],
        bos_token_id=checkpoint.model.config.bos_token_id,
    ),
}
