"""Judged answers, kept as they come, so that a stopped run goes on.

One file a run, readable by its owner alone: a digest over all that the run depends on, its seed, and
whether each answer was right. No text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd2.algorithm.params import CollaborationParams, LambdaUser
from user_agent.store.tuned import RUN_FILES, append_private, config_folder, delete

_Right = dict[tuple[LambdaUser, float, int], bool]
"""True if an answer was right, by λ, α and the question's number."""


class StoredAnswers:
    """The judged answers of one run."""

    def __init__(self, depends_on: Any, new_seed: int, *, is_fixed: bool) -> None:
        """Take up a run, or an earlier one that was stopped.

        An earlier one that this run does not go on with is deleted when this one has its first answer, not before.

        Args:
            depends_on: JSON; a run on anything else is another run.
            new_seed: of the run, if there is none to go on with.
            is_fixed: whether a stopped run with another seed is another run too.

        Raises:
            InvalidParameter: if the file cannot be written.
        """
        self._digest = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
        self._file = config_folder() / RUN_FILES.replace("*", self._digest[:16])
        self.seed, self._right = new_seed, _Right()
        header, answers = _read(self._file)
        self._is_begun = header.get("run") == self._digest and (not is_fixed or header.get("seed") == new_seed)
        if self._is_begun:
            self.seed, self._right = header["seed"], answers
            _cut_after_last_line(self._file)

    def __len__(self) -> int:
        return len(self._right)

    def right(self, setting: CollaborationParams, question: int) -> bool | None:
        """True if an answer was right; None if it has not been asked for yet."""
        return self._right.get((setting.lambda_user, setting.alpha, question))

    def add(self, setting: CollaborationParams, questions: Sequence[int], right: Sequence[bool]) -> None:
        """Keep some answers of one setting.

        Raises:
            InvalidParameter: if the file cannot be written.
        """
        lines: list[str] = []
        if not self._is_begun:
            delete(self._file)
            lines.append(json.dumps({"run": self._digest, "seed": self.seed}))
            self._is_begun = True
        for question, is_right in zip(questions, right, strict=True):
            self._right[setting.lambda_user, setting.alpha, question] = is_right
            lines.append(json.dumps([setting.lambda_user, setting.alpha, question, is_right]))
        append_private(self._file, lines)

    def done(self) -> None:
        """The run is complete and its result is kept elsewhere."""
        delete(self._file)


def _cut_after_last_line(file: Path) -> None:
    """Take off a line that a crash has cut short, so that the next one begins on its own."""
    content = file.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _read(file: Path) -> tuple[dict[str, Any], _Right]:
    """Header and answers of an earlier run; nothing if there is none, or it cannot be read."""
    try:
        header, *lines = file.read_text(encoding="utf-8").split("\n")
        values = [json.loads(line) for line in lines[:-1]]  # behind the last newline: a line cut short, or nothing
        answers = {(lambda_user, alpha, question): right for lambda_user, alpha, question, right in values}
        return dict(json.loads(header)), answers
    except (OSError, ValueError, TypeError):
        return {}, {}
