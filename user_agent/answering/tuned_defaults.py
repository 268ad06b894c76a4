"""λ and α where `user-agent ask` is not given them: as tuned for the pair of models, else built in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ssd2.algorithm.params import CollaborationParams
from ssd2.models.checkpoint import fingerprint, load_config_and_tokenizer
from user_agent.config import AgentConfig
from user_agent.line.client import CoreClient
from user_agent.line.credentials import CoreCredentials
from user_agent.store.ledger import Ledger
from user_agent.store.tuned import Choice, saved_choices

BUILT_IN = CollaborationParams()


def collaboration_for(
    config: AgentConfig, ledger: Ledger, credentials: CoreCredentials | None = None
) -> tuple[CollaborationParams, Choice | None]:
    """λ and α, and the saved choice if any of it is used.

    Only where something was tuned with this user model is the core asked what it serves.

    Args:
        config: with λ and α as given, or None, the two models, and the core, if any.
        ledger: where what is sent is entered.
        credentials: of the line to the core; None for one that is not encrypted, with no key.

    Raises:
        SlingshotError: if a parameter is out of its range, the saved choices cannot be read, or the core cannot be
            asked.
    """
    lambda_user, alpha = config.lambda_user, config.alpha
    given = collaboration_of(lambda_user, alpha, None)
    is_all_given = lambda_user is not None and (alpha is not None or lambda_user in (0, 1))
    if is_all_given or not config.core or not (tuned := tuned_with(config.user_model)):
        return given, None
    served = asyncio.run(_served(config.core, config, ledger, credentials))
    choice = next((choice for choice in tuned if choice.core_sha256 == served), None)
    return collaboration_of(lambda_user, alpha, choice), choice


def collaboration_of(lambda_user: float | None, alpha: float | None, choice: Choice | None) -> CollaborationParams:
    """λ and α as given; where they are None as tuned, or built in.

    Raises:
        InvalidParameter: if one is out of its range.
    """
    tuned = choice or BUILT_IN
    return CollaborationParams(
        tuned.lambda_user if lambda_user is None else lambda_user, tuned.alpha if alpha is None else alpha
    )


def tuned_with(user_model: Path) -> list[Choice]:
    """The saved choices for a user model; its fingerprint is taken only if there are any."""
    choices = saved_choices()
    if not choices or not user_model.is_dir():
        return []
    sha256 = fingerprint(user_model)
    return [choice for choice in choices if choice.user_sha256 == sha256]


async def _served(core: str, config: AgentConfig, ledger: Ledger, credentials: CoreCredentials | None) -> str:
    model, _ = load_config_and_tokenizer(config.user_model)
    async with CoreClient(core, ledger, credentials=credentials, answer_timeout_s=config.timeout) as client:
        return (await client.model_card(config.model, model.family)).model_sha256
