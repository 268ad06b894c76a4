"""Result of a reading check: whether a pair of models can read the documents of a link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from user_agent.answering.user_model import UserModel
from user_agent.documents.passage import Passage

TELLS_FROM = 3
"""Fewer wrong answers than this say nothing: even good models miss one."""

READS_FROM = 0.25
"""Share of right answers from which a pair counts as one that reads the documents; guesses come to about nothing."""


@dataclass(frozen=True)
class ReadingCheck:
    """Test questions about documents, answered by the user model alone.

    Attributes:
        questions: how many were answered.
        right: how many of them correctly.
    """

    questions: int = 0
    right: int = 0

    @property
    def can_read(self) -> bool | None:
        """False if the models cannot read the documents; None if there were too few questions to tell."""
        if self.questions < TELLS_FROM and not self.right:
            return None
        return self.right >= READS_FROM * self.questions

    def sentence(self, models: str) -> str:
        """Return the result as a sentence.

        Args:
            models: name of the models, as at the beginning of a sentence.
        """
        if not self.questions:
            return f"{models} could not be checked on these documents: no test question was made and answered in time"
        found = f"{models} answered {self.right} of {self.questions} test questions about these documents correctly"
        if self.can_read is None:
            return f"{found}, which is too few to tell"
        return found if self.can_read else f"{found}: these models cannot read them; choose others"


class CheckReading(Protocol):
    """Function that asks the questions."""

    def __call__(
        self,
        user_model: UserModel,
        passages: Sequence[Passage],
        goes_on: Callable[[ReadingCheck], bool],
        /,
        *,
        system_prompt: str,
    ) -> ReadingCheck:
        """Return the result; the callback gets the one so far and returns whether to continue."""
        ...
