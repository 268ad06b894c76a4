"""λ and α where a request leaves them open: as tuned for the models, else as measured for the pair, else built in."""

from __future__ import annotations

from pathlib import Path

from ssd2.algorithm.params import CollaborationParams, LambdaUser
from ssd2.models.pairs import PairSettings, pair_named
from user_agent.store.tuned import Choice, saved_choices

BUILT_IN = CollaborationParams()


def settings_with(pair: str) -> PairSettings | None:
    """Return what was measured best with a pair; None without a pair, or where nothing was."""
    return pair_named(pair).settings if pair else None


def collaboration_of(
    lambda_user: LambdaUser | None, alpha: float | None, choice: Choice | None, measured: PairSettings | None = None
) -> CollaborationParams:
    """Complete λ and α: those that are None are as tuned, as measured, or built in.

    Raises:
        InvalidParameter: if one is out of its range.
    """
    own = choice or measured or BUILT_IN
    return CollaborationParams(
        own.lambda_user if lambda_user is None else lambda_user, own.alpha if alpha is None else alpha
    )


def tuned_with(user_model: Path) -> list[Choice]:
    """Return the saved choices for a user model; its fingerprint is taken only if there are any."""
    from ssd2.models.checkpoint import fingerprint  # loads torch, which no help text has to wait for

    choices = saved_choices()
    if not choices or not user_model.is_dir():
        return []
    sha256 = fingerprint(user_model)
    return [choice for choice in choices if choice.user_sha256 == sha256]
