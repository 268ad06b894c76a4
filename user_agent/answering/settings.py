"""Settings of the service that answers: how, with which user model, and how many answers at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd2.demo.paths import USER
from ssd2.models.pairs import downloaded_folder, pair_named
from user_agent.answering.request import AnswerSettings
from user_agent.answering.tuned_defaults import settings_with, tuned_with
from user_agent.fields import Face


class ServiceSettings(AnswerSettings):
    """Defaults of a service's requests, and its limits."""

    user_model: Annotated[Path, Face("Checkpoint folder of the user model", default="the demo's", advanced=True)] = USER
    max_answers: Annotated[int, Face("Maximum number of concurrent answers")] = Field(default=2, ge=1)
    max_waiting: Annotated[int, Face("Further answers that may wait; one more is refused with 429")] = Field(
        default=32, ge=0
    )

    @property
    def user_folder(self) -> Path:
        """Folder of the user model: the pair's, if one is chosen.

        Raises:
            ModelNotFound: if the pair's is not downloaded.
        """
        return downloaded_folder(pair_named(self.pair), "user") if self.pair else self.user_model

    @property
    def models_title(self) -> str:
        """The models that answer, as at the beginning of a sentence."""
        return self.pair or ("The demo's models" if self.user_model == USER else "The configured models")

    @property
    def asks_core(self) -> bool:
        """False at λ = 1: as it is set, or as it is the pair's own and nothing was tuned."""
        if self.lambda_user is not None:
            return self.lambda_user != 1
        measured = settings_with(self.pair)
        is_alone = measured is not None and measured.lambda_user == 1
        return not is_alone or bool(tuned_with(pair_named(self.pair).user.folder))
