"""Results of verdicts: mean ratings, and wins against a baseline, with 95% intervals.

An answer wins a comparison if both orders give it the higher score, and loses if both give it to the
baseline; all else is a tie. Unreadable verdicts are left out and reported.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ssd2.evaluation.intervals import mean_interval, wilson_interval
from ssd2.lab.judge import Comparisons, Judge, Question, Ratings, Verdict
from ssd2.lab.judge_templates import ATTRIBUTES, REPORTED

OUTCOMES = ("wins", "ties", "losses")


@dataclass(frozen=True)
class RatingResult:
    """Ratings of one group.

    Attributes:
        label: of the group.
        answers: number of rated answers.
        unreadable: answers whose verdict could not be read; they are left out.
        means: of each of `ATTRIBUTES`, in [0, 10]; empty if no verdict could be read.
        intervals: of the means, 95%, by the normal approximation; None for a single answer.
    """

    label: str
    answers: int
    unreadable: int
    means: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        return asdict(self)


@dataclass(frozen=True)
class ComparisonResult:
    """Comparison of one group with the baseline.

    Attributes:
        label: of the group.
        baseline: label of the other.
        pairs: number of pairs, each compared in both orders.
        unreadable: pairs with a verdict that could not be read; they are left out.
        wins: pairs in which both orders give the answer the higher score.
        losses: likewise the baseline.
        ties: all other pairs that could be read.
        contradictions: ties because each order prefers another one.
        first_preferred: readable replies that give the higher score to what they were shown first.
        second_preferred: likewise second.
    """

    label: str
    baseline: str
    pairs: int
    unreadable: int
    wins: int
    losses: int
    ties: int
    contradictions: int
    first_preferred: int
    second_preferred: int

    def share(self, outcome: str) -> tuple[float, tuple[float, float]] | None:
        """Return the share of one of `OUTCOMES` among readable pairs, with its 95% interval (Wilson)."""
        if not (count := self.pairs - self.unreadable):
            return None
        share = getattr(self, outcome) / count
        return share, wilson_interval(share, count)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        return {**asdict(self), "shares": {outcome: self.share(outcome) for outcome in OUTCOMES}}


def rate(ratings: Ratings, judge: Judge, verdicts: Mapping[str, Verdict]) -> list[RatingResult]:
    """Return the mean ratings of each group."""
    return [_rate(label, [verdicts[q.key(judge)].ratings for q in questions]) for label, questions in ratings.items()]


def _rate(label: str, ratings: Sequence[dict[str, float] | None]) -> RatingResult:
    readable = [one for one in ratings if one is not None]
    values = {name: [one[name] for one in readable] for name in ATTRIBUTES} if readable else {}
    return RatingResult(
        label,
        len(ratings),
        len(ratings) - len(readable),
        {name: statistics.fmean(of_one) for name, of_one in values.items()},
        {name: mean_interval(of_one, 0, 10) for name, of_one in values.items()},
    )


def compare(
    comparisons: Comparisons, baseline: str, judge: Judge, verdicts: Mapping[str, Verdict]
) -> list[ComparisonResult]:
    """Return the wins, ties and losses of each group."""

    def scores(question: Question) -> tuple[float, float] | None:
        return verdicts[question.key(judge)].scores

    return [
        _compare(label, baseline, [(scores(pair.answer_first), scores(pair.baseline_first)) for pair in pairs])
        for label, pairs in comparisons.items()
    ]


_Scores = tuple[float, float] | None


def _compare(label: str, baseline: str, orders: Sequence[tuple[_Scores, _Scores]]) -> ComparisonResult:
    readable = [(one, other) for one, other in orders if one and other]
    outcomes = Counter(
        (_sign(answer - base), _sign(swapped_answer - swapped_base))
        for (answer, base), (swapped_base, swapped_answer) in readable
    )
    shown = Counter(_sign(first - second) for order in readable for first, second in order)
    wins, losses = outcomes[1, 1], outcomes[-1, -1]
    return ComparisonResult(
        label,
        baseline,
        pairs=len(orders),
        unreadable=len(orders) - len(readable),
        wins=wins,
        losses=losses,
        ties=len(readable) - wins - losses,
        contradictions=outcomes[1, -1] + outcomes[-1, 1],
        first_preferred=shown[1],
        second_preferred=shown[-1],
    )


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def rating_table(results: Sequence[RatingResult]) -> str:
    """Return a table of mean ratings with their intervals, a row per group."""
    lines = [f"| | {' | '.join(REPORTED)} | answers | unreadable |", "|---" * (len(REPORTED) + 3) + "|"]
    for result in results:
        cells = [_mean_cell(result.means.get(name), result.intervals.get(name)) for name in REPORTED]
        lines.append(f"| {result.label} | {' | '.join(cells)} | {result.answers} | {result.unreadable} |")
    return "\n".join(lines)


def comparison_table(results: Sequence[ComparisonResult]) -> str:
    """Return a table of the shares of wins, ties and losses with their intervals, a row per group."""
    titles = ("against", "wins", "ties", "losses", "orders disagree", "pairs", "unreadable")
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for result in results:
        cells = [_share_cell(result.share(outcome)) for outcome in OUTCOMES]
        counts = f"{result.contradictions} | {result.pairs} | {result.unreadable}"
        lines.append(f"| {result.label} | {result.baseline} | {' | '.join(cells)} | {counts} |")
    return "\n".join(lines)


def _mean_cell(mean: float | None, interval: tuple[float, float] | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f} ({interval[0]:.2f}–{interval[1]:.2f})" if interval else f"{mean:.2f}"


def _share_cell(share: tuple[float, tuple[float, float]] | None) -> str:
    return "–" if share is None else f"{share[0]:.3f} ({share[1][0]:.3f}–{share[1][1]:.3f})"
