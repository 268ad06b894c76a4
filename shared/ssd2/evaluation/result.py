"""Result of one setting on one row: a line of a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

from ssd2.demo.generator import Item
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.scorer import judge


@dataclass(frozen=True)
class Outcome:
    """Judgements of the answers to the items of a row.

    Attributes:
        right: item by item.
        not_known: share of the answers that say that the notes do not have it.
        private: share of the private slots that stand in the answers, a mean over the items; None if they have none.
        public: of the public slots, likewise.
    """

    right: tuple[bool, ...]
    not_known: float
    private: float | None
    public: float | None

    @classmethod
    def of(cls, items: Sequence[Item], answers: Sequence[str]) -> Outcome:
        """Judge the answers to some items, at least one."""
        judgements = [judge(item, answer) for item, answer in zip(items, answers, strict=True)]
        return cls(
            tuple(judgement.is_right for judgement in judgements),
            fmean(judgement.says_not_known for judgement in judgements),
            _mean([judgement.private_share for judgement in judgements]),
            _mean([judgement.public_share for judgement in judgements]),
        )


@dataclass(frozen=True)
class Result:
    """Result of one setting on one row.

    Attributes:
        row: of it, by its name in `ROWS`.
        setting: λ, α, timesteps and so on, with the models, the items and the seed: all that it depends on.
        outcome: of its answers.
        seconds_per_answer: wall time, all answers of a batch side by side.
        timesteps_per_block: mean.
        core_logits_per_block: mean.
        exact: share of timesteps whose projection is provably that of full logits; None where it was not counted.
        frame_bytes: of the core's logits at a timestep.
        answers: texts; none where they were not kept.
    """

    row: str
    setting: Mapping[str, Any]
    outcome: Outcome
    seconds_per_answer: float
    timesteps_per_block: float
    core_logits_per_block: float
    exact: float | None
    frame_bytes: int
    answers: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.outcome.right)

    @property
    def share(self) -> float:
        """Share of right answers."""
        return fmean(self.outcome.right)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the share."""
        return wilson_interval(self.share, self.items)

    def as_json(self) -> dict[str, Any]:
        """Return a line of the results file; right answers are 1, the others 0."""
        line = {**asdict(self), "setting": dict(self.setting)}
        line["outcome"]["right"] = [int(right) for right in self.outcome.right]
        if not self.answers:
            del line["answers"]
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Result:
        """Read a line that `as_json` wrote.

        Raises:
            KeyError, TypeError: if it is another one.
        """
        outcome = Outcome(**{**line["outcome"], "right": tuple(map(bool, line["outcome"]["right"]))})
        values = {field.name: line[field.name] for field in fields(cls) if field.name in line}
        return cls(**{**values, "outcome": outcome, "answers": tuple(line.get("answers", ()))})


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None
