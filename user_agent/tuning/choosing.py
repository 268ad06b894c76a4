"""Choice of a setting, from right and wrong answers to the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssd2.algorithm.params import CollaborationParams
from ssd2.evaluation.paired import only_one_right, sign_test

Outcomes = Mapping[CollaborationParams, Sequence[bool]]
"""For each setting whether its answers were right, question by question."""


@dataclass(frozen=True)
class Verdict:
    """Chosen setting.

    Attributes:
        chosen: the setting.
        alike: settings that cannot be told from it at 95%, in order.
    """

    chosen: CollaborationParams
    alike: tuple[CollaborationParams, ...]


def choose(outcomes: Outcomes, eligible: Sequence[CollaborationParams]) -> Verdict | None:
    """The smallest λ, then the smallest α, within one standard error of the best setting.

    The standard error is that of the difference to the best one, question by question: all settings
    answer the same questions. The rule is that of Breiman et al. 1984,
    "Classification and Regression Trees", §3.4.3: of what is about as good, the simplest. Simplest
    means that the core keeps the most weight, and that the pass without documents is saved. A setting
    that answered nothing right is never chosen.

    Args:
        outcomes: of every setting.
        eligible: settings that may be chosen.

    Returns:
        None if no eligible setting answered anything right.
    """
    best = max(eligible, key=lambda setting: (sum(outcomes[setting]), -setting.lambda_user, -setting.alpha))
    if not any(outcomes[best]):
        return None
    good = [
        setting
        for setting in eligible
        if any(outcomes[setting]) and _is_within_one_error(outcomes[setting], outcomes[best])
    ]
    chosen = min(good, key=lambda setting: (setting.lambda_user, setting.alpha))
    others = (setting for setting in eligible if setting != chosen)
    alike = tuple(s for s in others if sign_test(outcomes[s], outcomes[chosen]) >= 0.05)
    return Verdict(chosen, alike)


def _is_within_one_error(right: Sequence[bool], best: Sequence[bool]) -> bool:
    """True if the mean difference of a pair of settings is at most its standard error.

    Of n differences of -1, 0 or 1 with sum D, of which S are not 0, the mean is D/n and its squared
    standard error (S - D²/n) / (n (n - 1)); so D² <= S says the same, in whole numbers.
    """
    only_best, only_other = only_one_right(best, right)
    return (only_best - only_other) ** 2 <= only_best + only_other
