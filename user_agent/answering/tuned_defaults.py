"""λ and α where a request leaves them open: as tuned for the pair of models, else built in."""

from __future__ import annotations

from pathlib import Path

from ssd2.algorithm.params import CollaborationParams
from ssd2.models.checkpoint import fingerprint
from user_agent.store.tuned import Choice, saved_choices

BUILT_IN = CollaborationParams()


def collaboration_of(lambda_user: float | None, alpha: float | None, choice: Choice | None) -> CollaborationParams:
    """Complete λ and α: those that are None are as tuned, or built in.

    Raises:
        InvalidParameter: if one is out of its range.
    """
    tuned = choice or BUILT_IN
    return CollaborationParams(
        tuned.lambda_user if lambda_user is None else lambda_user, tuned.alpha if alpha is None else alpha
    )


def tuned_with(user_model: Path) -> list[Choice]:
    """Return the saved choices for a user model; its fingerprint is taken only if there are any."""
    choices = saved_choices()
    if not choices or not user_model.is_dir():
        return []
    sha256 = fingerprint(user_model)
    return [choice for choice in choices if choice.user_sha256 == sha256]
