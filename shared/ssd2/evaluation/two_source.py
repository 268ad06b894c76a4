"""The two-source benchmark: questions that neither model can answer alone.

Three systems answer the same unseen items with the same seeds: both models together, the core alone
(λ = 0) and the user model alone (λ = 1). Shares of correct answers:

    private  the notes' value is in the answer, on questions that the notes answer
    public   the town's value is in the answer, on questions that the town answers
    joint    both values are in the answer, on two-source questions
    exact    the answer is the reference word for word, every slot right, on two-source questions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.collaboration import Timestep, decode_locally
from ssd2.algorithm.measured import of_pair
from ssd2.algorithm.params import CollaborationParams, DecodingParams, Seeds
from ssd2.demo.generator import Item, unseen_items
from ssd2.errors import ModelMismatch, TokenizerMismatch
from ssd2.evaluation.costs import COST_COLUMNS, BlockCosts
from ssd2.logits.format import FLOAT16, LogitsFormat
from ssd2.models.checkpoint import Checkpoint, load_checkpoint
from ssd2.models.predict import begin, begin_sampler, user_terms

SYSTEMS = ("together", "core_only", "user_only")
EVALUATED_KINDS = ("private", "public", "two-source")


@dataclass(frozen=True)
class Accuracy:
    """Shares of correct answers, as the module says; None where no such question was asked."""

    joint: float | None
    private: float | None
    public: float | None
    exact: float | None


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


def evaluate_two_source(
    pair: Pair,
    collaboration: CollaborationParams,
    params: DecodingParams,
    *,
    limit: int,
    seed: int = 0,
    batch_size: int = 50,
    logits_format: LogitsFormat = FLOAT16,
    on_progress: Callable[[int], None] = lambda _: None,
    on_answers: Callable[[str, Sequence[Item], Sequence[str]], None] = lambda _system, _items, _answers: None,
) -> dict[str, object]:
    """Run the benchmark.

    Args:
        pair: θ_core and θ_user.
        collaboration: λ and α of "together"; core alone is λ = 0, user alone λ = 1 with the same α.
        params: how to decode.
        limit: items of each kind.
        seed: of the items and of the decodes.
        batch_size: items decoded at once; no answer depends on it.
        logits_format: how the core's logits travel.
        on_progress: told how many answers have come since the last call.
        on_answers: given the answers of one of `SYSTEMS` to the items of one kind.

    Returns:
        An `Accuracy` with its `BlockCosts` as a dict for each of `SYSTEMS`, and the settings.
    """
    collaborations = {
        "together": collaboration,
        "core_only": CollaborationParams(0.0, collaboration.alpha, collaboration.normalise),
        "user_only": CollaborationParams(1.0, collaboration.alpha, collaboration.normalise),
    }
    items = {kind: unseen_items(kind, limit, seed) for kind in EVALUATED_KINDS}
    report: dict[str, object] = {}
    for system in SYSTEMS:
        costs = BlockCosts(collaborations[system], params)
        answers = {
            kind: answer_items(
                pair,
                items[kind],
                collaborations[system],
                params,
                seed,
                batch_size,
                on_progress,
                logits_format,
                costs.see,
            )
            for kind in EVALUATED_KINDS
        }
        for kind in EVALUATED_KINDS:
            on_answers(system, items[kind], answers[kind])
        report[system] = {**asdict(score(items, answers)), **costs.as_dict()}
    settings = {"lambda_user": collaboration.lambda_user, "alpha": collaboration.alpha, "steps": params.steps}
    return {**report, **settings, "logits": str(logits_format), "items": limit, "seed": seed}


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
) -> list[str]:
    """Answers of one system to all items; `on_timestep` as in `decode_locally`."""
    answers: list[str] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        seeds = [Seeds.reproducible(seed + start + row) for row in range(len(batch))]
        answers += answer_batch(pair, batch, collaboration, params, seeds, logits_format, on_timestep)
        on_progress(len(batch))
    return answers


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


def score(items: dict[str, list[Item]], answers: dict[str, list[str]]) -> Accuracy:
    """Compare answers with their items, kind by kind."""

    def share(kind: str, is_right: Callable[[Item, str], bool]) -> float | None:
        if kind not in items:
            return None
        right = [is_right(item, answer) for item, answer in zip(items[kind], answers[kind], strict=True)]
        return sum(right) / len(right)

    return Accuracy(
        joint=share("two-source", lambda i, a: holds(a, i.private_slot) and holds(a, i.public_slot)),
        private=share("private", lambda i, a: holds(a, i.private_slot)),
        public=share("public", lambda i, a: holds(a, i.public_slot)),
        exact=share("two-source", lambda i, a: a.strip().lower() == i.answer.lower()),
    )


def as_table(report: dict[str, object]) -> str:
    """The report of `evaluate_two_source` as a Markdown table."""
    columns = list(Accuracy.__dataclass_fields__)
    rows = [f"| | {' | '.join((*columns, *COST_COLUMNS.values()))} |", "|---" * (len(columns) + 3) + "|"]
    for system in SYSTEMS:
        values = report[system]
        if isinstance(values, dict):
            cells = [f"{values[column]:.3f}" for column in columns] + [f"{values[cost]:.1f}" for cost in COST_COLUMNS]
            rows.append(f"| {system} | {' | '.join(cells)} |")
    settings = ", ".join(
        f"{name} {report[name]}" for name in ("lambda_user", "alpha", "steps", "logits", "items", "seed")
    )
    return "\n".join([*rows, "", settings])


def holds(answer: str, value: str) -> bool:
    """True if a value stands in an answer, as whole words and in any case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer, re.IGNORECASE) is not None
