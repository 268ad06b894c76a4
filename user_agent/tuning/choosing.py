"""Choice of a setting, from right and wrong answers to the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssd2.algorithm.params import CollaborationParams
from ssd2.evaluation.paired import Discordant

Outcomes = Mapping[CollaborationParams, Sequence[bool]]
"""For each setting whether its answers were right, question by question."""


@dataclass(frozen=True)
class Verdict:
    """Chosen setting.

    Attributes:
        chosen: the setting.
        alike: settings that cannot be told from it at 95%, in order.
        constant: the best setting with one λ for all positions; None if none answered anything right.
    """

    chosen: CollaborationParams
    alike: tuple[CollaborationParams, ...]
    constant: CollaborationParams | None


def choose(outcomes: Outcomes, eligible: Sequence[CollaborationParams]) -> Verdict | None:
    """λ auto, else the smallest λ, then the smallest α, within one standard error of the best setting.

    The standard error is that of the difference to the best one, question by question: all settings
    answer the same questions. The rule is that of Breiman et al. 1984,
    "Classification and Regression Trees", §3.4.3: of what is about as good, the simplest. Simplest
    is auto, which no search has fitted to these questions; then that the core keeps the most weight,
    and that the pass without documents is saved. A setting that answered nothing right is never chosen.

    Args:
        outcomes: of every setting.
        eligible: settings that may be chosen.

    Returns:
        None if no eligible setting answered anything right.
    """
    best = _best(outcomes, eligible)
    if best is None:
        return None
    good = [
        setting
        for setting in eligible
        if any(outcomes[setting]) and _is_within_one_error(outcomes[setting], outcomes[best])
    ]
    chosen = min(good, key=_complexity)
    others = (setting for setting in eligible if setting != chosen)
    alike = tuple(s for s in others if Discordant.of(outcomes[s], outcomes[chosen]).p_value >= 0.05)
    return Verdict(chosen, alike, _best(outcomes, [s for s in eligible if not isinstance(s.lambda_user, str)]))


def _best(outcomes: Outcomes, settings: Sequence[CollaborationParams]) -> CollaborationParams | None:
    """Return the simplest of the settings with the most right answers; None if there are no right ones."""
    best = min(settings, key=lambda setting: (-sum(outcomes[setting]), _complexity(setting)), default=None)
    return best if best and any(outcomes[best]) else None


def _complexity(setting: CollaborationParams) -> tuple[float, float]:
    """Order settings by what is to be preferred of those that are about as good."""
    return (-1.0 if isinstance(setting.lambda_user, str) else setting.lambda_user, setting.alpha)


def _is_within_one_error(right: Sequence[bool], best: Sequence[bool]) -> bool:
    """True if the mean difference of a pair of settings is at most its standard error.

    Of n differences of -1, 0 or 1 with sum D, of which S are not 0, the mean is D/n and its squared
    standard error (S - D²/n) / (n (n - 1)); so D² <= S says the same, in whole numbers.
    """
    between = Discordant.of(best, right)
    return (between.only_first - between.only_second) ** 2 <= between.only_first + between.only_second
