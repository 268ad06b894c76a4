"""The reading check of `user-agent docs link`, with what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import typer

from ssd2.errors import SlingshotError

if TYPE_CHECKING:
    from user_agent.answering.reading_check import ReadingCheck
    from user_agent.answering.user_model import UserModel
    from user_agent.config import AgentConfig
    from user_agent.documents.collection import Collection


def checked(config: AgentConfig, library: Collection, links: Container[int]) -> ReadingCheck | None:
    """Check whether the configured user model can read the documents of some links. Nothing is sent.

    Returns:
        None if it was not checked; why is said on stderr. A link is kept whatever comes of it.
    """
    from rich.console import Console

    from user_agent.commands.remedies import with_remedy
    from user_agent.tuning.reading import QUESTIONS, check_reading

    if not config.check_reading or not (passages := library.sample(links)):
        return None
    with Console(stderr=True).status("Checking whether the models can read them") as status:

        def show(found: ReadingCheck) -> bool:
            status.update(f"Checking whether the models can read them: question {found.questions + 1} of {QUESTIONS}")
            return True

        try:
            return check_reading(_user_model(config), passages, show, system_prompt=config.system_prompt)
        except SlingshotError as error:
            typer.echo(f"user-agent: not checked whether the models can read them: {with_remedy(error)}", err=True)
            return None


def _user_model(config: AgentConfig) -> UserModel:
    from user_agent.answering.user_model import UserModel

    config.check_user_model()
    return UserModel.configured(config, with_weights=True)


def print_check(found: ReadingCheck, config: AgentConfig) -> None:
    """Print to stderr what was found, and how to get another pair if this one cannot read the documents."""
    commands = "`user-agent models list`, `user-agent models get NAME`, `user-agent models use NAME`"
    remedy = f" ({commands})" if found.can_read is False else ""
    typer.echo(f"user-agent: {found.sentence(config.models_title)}{remedy}", err=True)


def check_json(found: ReadingCheck | None) -> dict[str, Any] | None:
    """Return the check as printed JSON; None if there was none."""
    return None if found is None else {"questions": found.questions, "right": found.right, "can_read": found.can_read}
