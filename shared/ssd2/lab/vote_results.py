"""Results of blind votes: wins, ties and losses by rater and by majority, and the agreement of raters.

A pair is won by the system that more of its raters prefer; where as many prefer either, it is a tie. Both kinds
of tie (equally good, equally bad) are one category, as in the paper's table 2.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ssd2.errors import InvalidParameter
from ssd2.evaluation.intervals import wilson_interval
from ssd2.lab.agreement import Kappa, cohens_kappa
from ssd2.lab.judge_results import OUTCOMES
from ssd2.lab.votes import EQUALLY_BAD, FIRST, SECOND, Vote, read_votes

MAJORITY = "majority"
"""Label of the row over all raters."""

Share = tuple[float, tuple[float, float]]
"""A share with its 95% interval (Wilson)."""


@dataclass(frozen=True)
class Tally:
    """Votes for one system against the other.

    Attributes:
        label: the rater, or `MAJORITY`.
        wins: pairs in which the system is preferred.
        ties: pairs in which neither is.
        losses: pairs in which the other is.
        equally_bad: ties in which both answers are called bad; None for the majority.
        first_preferred: votes for the answer shown first.
        second_preferred: votes for the answer shown second.
    """

    label: str
    wins: int
    ties: int
    losses: int
    equally_bad: int | None
    first_preferred: int
    second_preferred: int

    @property
    def pairs(self) -> int:
        """Number of judged pairs."""
        return self.wins + self.ties + self.losses

    def share(self, outcome: str) -> Share | None:
        """Return the share of one of `OUTCOMES` among the pairs."""
        return _share(getattr(self, outcome), self.pairs)

    @property
    def preferred(self) -> Share | None:
        """Share of wins among the pairs that are no ties; an interval without 0.5 shows a difference."""
        return _share(self.wins, self.wins + self.losses)

    @property
    def first_shown(self) -> Share | None:
        """Share of votes for the answer shown first among those that are no ties; about 0.5 without a habit."""
        return _share(self.first_preferred, self.first_preferred + self.second_preferred)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        shares = {outcome: self.share(outcome) for outcome in OUTCOMES}
        derived = {"pairs": self.pairs, "shares": shares, "preferred": self.preferred, "first_shown": self.first_shown}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters on the pairs that both judged.

    Attributes:
        raters: their names.
        pairs: number of those pairs.
        share: of them on which both prefer the same, a tie being one of three; None without such pairs.
        kappa: Cohen's κ; None where it is not defined.
    """

    raters: tuple[str, str]
    pairs: int
    share: Share | None
    kappa: Kappa | None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        return asdict(self)


@dataclass(frozen=True)
class VoteResults:
    """Results of one comparison.

    Attributes:
        system: whose wins are counted.
        other: what it is compared with.
        tallies: one per rater, then that of the majority.
        agreements: one per pair of raters.
    """

    system: str
    other: str
    tallies: list[Tally]
    agreements: list[Agreement]

    @property
    def mean_kappa(self) -> float | None:
        """Mean κ over the pairs of raters for which it is defined, as the paper gives it."""
        values = [one.kappa.value for one in self.agreements if one.kappa]
        return statistics.fmean(values) if values else None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of --json."""
        rows = {
            "rows": [one.as_json() for one in self.tallies],
            "agreements": [one.as_json() for one in self.agreements],
        }
        return {"system": self.system, "other": self.other, **rows, "mean_kappa": self.mean_kappa}


def read_raters(files: Sequence[Path]) -> dict[str, list[Vote]]:
    """Return the votes of each rater.

    Raises:
        InvalidParameter: if a file is missing, holds no vote or something else, if two files hold votes of one
            rater, or votes on different systems.
    """
    raters: dict[str, list[Vote]] = {}
    for file in files:
        votes = read_votes(file)
        if not votes:
            reason = "contains no votes" if file.is_file() else "does not exist"
            raise InvalidParameter(f"{file} {reason}; choose a file that a rater's votes are in")
        if votes[0].rater in raters:
            raise InvalidParameter(f"two files contain votes of {votes[0].rater!r}; choose one of them")
        raters[votes[0].rater] = votes
    compared = {frozenset(vote.shown) for votes in raters.values() for vote in votes}
    if len(compared) > 1:
        named = " and ".join(sorted(" with ".join(sorted(systems)) for systems in compared))
        raise InvalidParameter(f"these votes compare {named}; report each comparison by itself")
    return raters


def count_votes(raters: Mapping[str, Sequence[Vote]], system: str | None = None) -> VoteResults:
    """Count wins, ties and losses, and compute the agreement of each pair of raters.

    Args:
        raters: votes by rater, at least one.
        system: whose wins are counted; None for the first by name.

    Raises:
        InvalidParameter: if the votes are not on that system.
    """
    every = [vote for votes in raters.values() for vote in votes]
    systems = sorted(every[0].shown)
    system = systems[0] if system is None else system
    if system not in systems:
        raise InvalidParameter(f"these votes compare {' with '.join(systems)}, not {system!r}", parameter="system")
    other = next(one for one in systems if one != system)
    tallies = [_of_rater(name, votes, system) for name, votes in raters.items()]
    agreements = [_agreement(names, raters) for names in combinations(raters, 2)]
    return VoteResults(system, other, [*tallies, _of_majority(every, system)], agreements)


def _of_rater(name: str, votes: Sequence[Vote], system: str) -> Tally:
    bad = sum(vote.choice == EQUALLY_BAD for vote in votes)
    return _tally(name, [_value(vote, system) for vote in votes], bad, votes)


def _of_majority(votes: Sequence[Vote], system: str) -> Tally:
    balance: Counter[str] = Counter()
    for vote in votes:
        balance[vote.pair] += _value(vote, system)
    return _tally(MAJORITY, list(balance.values()), None, votes)


def _tally(label: str, values: Sequence[int], equally_bad: int | None, votes: Sequence[Vote]) -> Tally:
    """Count the pairs by the sign of their value: above 0 the system is preferred, below 0 the other."""
    wins, losses = sum(value > 0 for value in values), sum(value < 0 for value in values)
    first, second = (sum(vote.choice == place for vote in votes) for place in (FIRST, SECOND))
    return Tally(label, wins, len(values) - wins - losses, losses, equally_bad, first, second)


def _value(vote: Vote, system: str) -> int:
    return 0 if vote.preferred is None else 1 if vote.preferred == system else -1


def _agreement(names: tuple[str, str], raters: Mapping[str, Sequence[Vote]]) -> Agreement:
    one, other = ({vote.pair: vote.preferred for vote in raters[name]} for name in names)
    both = [(preferred, other[pair]) for pair, preferred in one.items() if pair in other]
    return Agreement(names, len(both), _share(sum(a == b for a, b in both), len(both)), cohens_kappa(both))


def _share(number: int, count: int) -> Share | None:
    return (number / count, wilson_interval(number / count, count)) if count else None


def votes_table(results: VoteResults) -> str:
    """Return a table of the shares of wins, ties and losses, a row per rater and one of the majority."""
    titles = (*OUTCOMES, "wins, ties left out", "pairs", "equally bad", "first shown preferred")
    lines = [f"| {results.system} against {results.other} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for one in results.tallies:
        cells = [_cell(share) for share in (*map(one.share, OUTCOMES), one.preferred)]
        bad = "–" if one.equally_bad is None else str(one.equally_bad)
        lines.append(f"| {one.label} | {' | '.join(cells)} | {one.pairs} | {bad} | {_cell(one.first_shown)} |")
    return "\n".join(lines)


def agreement_table(results: VoteResults) -> str:
    """Return a table of agreement and Cohen's κ, a row per pair of raters, and the mean κ below it."""
    if not results.agreements:
        return "One rater: there is no agreement to measure."
    lines = ["| raters | agree | Cohen's κ | pairs judged by both |", "|---|---|---|---|"]
    for one in results.agreements:
        kappa = _cell((one.kappa.value, one.kappa.interval) if one.kappa else None)
        lines.append(f"| {', '.join(one.raters)} | {_cell(one.share)} | {kappa} | {one.pairs} |")
    mean = results.mean_kappa
    return "\n".join([*lines, "", f"Mean κ: {'–' if mean is None else f'{mean:.2f}'}"])


def _cell(share: Share | None) -> str:
    return "–" if share is None else f"{share[0]:.3f} ({share[1][0]:.3f}–{share[1][1]:.3f})"
