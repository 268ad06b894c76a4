"""Settings of the service that answers: how, with which user model, and how many answers at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ssd2.demo.paths import USER
from ssd2.models.pairs import PairSettings, downloaded_folder, pair_named
from user_agent.answering.request import AnswerSettings
from user_agent.answering.tuned_defaults import settings_with, tuned_with
from user_agent.fields import Face


class ServiceSettings(AnswerSettings):
    """Defaults of a service's requests, and its limits."""

    user_model: Annotated[Path, Face("Checkpoint folder of the user model", default="the demo's", advanced=True)] = USER
    device: Annotated[
        str,
        Face(
            "Device of the user model, as torch names it",
            "auto takes CUDA or Apple's MPS where there is one, else the CPU.",
            advanced=True,
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Face(
            "Precision of the user model's weights",
            "auto is bfloat16 on CUDA and float32 elsewhere; 16 bits take half the memory and change some tokens.",
            advanced=True,
        ),
    ] = "auto"
    prompt_cache_mb: Annotated[
        int,
        Face(
            "Memory for what the user model has read of earlier prompts, in MB",
            "Another question about the same passages then starts sooner; 0 turns it off.",
            advanced=True,
        ),
    ] = Field(default=512, ge=0)
    stuffed_prompts: Annotated[
        Literal["warn", "refuse", "allow"],
        Face(
            "Messages of REST clients that look as if passages of documents had been put into them",
            "warn answers and says so, refuse sends nothing, allow does not look. The provider can read what is in a "
            "message; passages belong into slingshot.private, which only the user model reads.",
            label="Documents put into a message",
            advanced=True,
        ),
    ] = "warn"
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
    def measured(self) -> PairSettings | None:
        """Measured defaults of the pair; None if there are none."""
        return settings_with(self.pair)

    @property
    def asks_core(self) -> bool:
        """False at λ = 1: as it is set, or as it was measured with the pair and nothing was tuned."""
        if self.lambda_user is not None:
            return self.lambda_user != 1
        is_alone = self.measured is not None and self.measured.lambda_user == 1
        return not is_alone or bool(tuned_with(pair_named(self.pair).user.folder))
