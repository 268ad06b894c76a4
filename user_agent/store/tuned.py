"""Tuned settings: λ and α for each pair of models, stored between runs.

One file in the user's configuration folder, readable by its owner alone. It holds figures and
fingerprints, no text of documents or questions.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd2.algorithm.params import CollaborationParams, LambdaUser
from ssd2.errors import InvalidParameter
from user_agent.store.owner_only import owner_only

FILE = "tuned.json"
RUN_FILES = "tuning-*.jsonl"
"""Answers of tuning runs that were stopped."""

_ELSEWHERE = "check its disk and permissions, or use another configuration folder"


@dataclass(frozen=True)
class Measured:
    """One setting's share of right answers.

    Attributes:
        lambda_user: λ, or the rule in its place.
        alpha: α.
        share: of right answers.
        low: of the share's 95% interval (Wilson).
        high: of the same.
    """

    lambda_user: LambdaUser
    alpha: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """λ and α for one pair of models.

    Attributes:
        core_sha256: fingerprint of the core's model, as its card gives it.
        core_model: what the core calls it.
        user_sha256: fingerprint of the user model.
        lambda_user: λ, or the rule in its place.
        alpha: α.
        source: "documents" or "questions", what it was measured with.
        questions: how many.
        seed: of the run; None for questions of the user's own that were asked without a given one.
        tuned_on: the day, ISO 8601.
        alike: settings that the chosen one cannot be told from at 95%, as (λ, α), itself left out.
        curve: every setting.
        constant: the best setting with one λ for all positions, as (λ, α); None of a choice before there was another.
    """

    core_sha256: str
    core_model: str
    user_sha256: str
    lambda_user: LambdaUser
    alpha: float
    source: str
    questions: int
    seed: int | None
    tuned_on: str
    alike: tuple[tuple[LambdaUser, float], ...]
    curve: tuple[Measured, ...]
    constant: tuple[LambdaUser, float] | None = None

    @property
    def chosen(self) -> Measured:
        """The figures of the chosen setting."""
        return self.measured(self.lambda_user, self.alpha)

    def measured(self, lambda_user: LambdaUser, alpha: float) -> Measured:
        """The figures of one setting of the curve."""
        return next(m for m in self.curve if (m.lambda_user, m.alpha) == (lambda_user, alpha))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Choice:
        """The inverse of `dataclasses.asdict`.

        Raises:
            KeyError: if it is no choice; or a TypeError, a ValueError or an InvalidParameter.
        """
        curve = tuple(Measured(**point) for point in values["curve"])
        alike = tuple((lambda_user, float(alpha)) for lambda_user, alpha in values["alike"])
        constant = tuple(values["constant"]) if values.get("constant") else None
        choice = cls(**{**values, "curve": curve, "alike": alike, "constant": constant})
        on_curve = {(m.lambda_user, m.alpha) for m in curve}
        if not {(choice.lambda_user, choice.alpha), *alike, *([constant] if constant else [])} <= on_curve:
            raise ValueError("a setting is not on the curve")
        for lambda_user, alpha in on_curve:
            CollaborationParams(lambda_user, alpha)
        return choice


def config_folder() -> Path:
    """Return the folder of settings: $XDG_CONFIG_HOME/slingshot, else ~/.config/slingshot; on Windows in %APPDATA%."""
    base = os.environ.get("APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "slingshot"


def saved_choices() -> list[Choice]:
    """All saved choices, the latest last.

    Raises:
        InvalidParameter: if the file cannot be read.
    """
    file = config_folder() / FILE
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(saved, list):
            raise ValueError("not a list")
        return [Choice.from_json(values) for values in saved]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unusable("read", file, error) from error
    except (ValueError, KeyError, TypeError, InvalidParameter) as error:
        raise InvalidParameter(f"{file} does not contain tuned settings; delete it", parameter="tuned") from error


def saved_choice(core_sha256: str, user_sha256: str) -> Choice | None:
    """The choice for a pair of models, if it was tuned.

    Raises:
        InvalidParameter: if the file cannot be read.
    """
    pair = (core_sha256, user_sha256)
    return next((c for c in saved_choices() if (c.core_sha256, c.user_sha256) == pair), None)


def save_choice(choice: Choice) -> Path:
    """Keep a choice in place of an older one for the same pair.

    Returns:
        The file.

    Raises:
        InvalidParameter: if the file cannot be read or written.
    """
    pair = (choice.core_sha256, choice.user_sha256)
    others = [c for c in saved_choices() if (c.core_sha256, c.user_sha256) != pair]
    file = config_folder() / FILE
    write_private(file, json.dumps([asdict(c) for c in (*others, choice)], ensure_ascii=False, indent=1))
    return file


def forget_choices() -> int:
    """Delete all saved choices, what a crash left while they were written, and the answers of stopped tuning runs.

    Returns:
        How many files were deleted.

    Raises:
        InvalidParameter: if a file cannot be deleted.
    """
    folder = config_folder()
    files = [*folder.glob(f"{FILE}*"), *folder.glob(RUN_FILES)]
    for file in files:
        delete(file)
    return len(files)


def delete(file: Path) -> None:
    """Delete a file of the folder if it is there.

    Raises:
        InvalidParameter: if it cannot be deleted.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable("delete", file, error) from error


def append_private(file: Path, lines: Sequence[str]) -> None:
    """Add lines to a file that nobody but its owner can read; it and its folder are made if missing.

    Raises:
        InvalidParameter: if the file cannot be written.
    """
    _write(file, os.O_APPEND, "".join(f"{line}\n" for line in lines))


def write_private(file: Path, text: str) -> None:
    """Write a whole file that nobody but its owner can read: a crash leaves the old one or the new one.

    Raises:
        InvalidParameter: if it cannot be written.
    """
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    _write(new, os.O_TRUNC, text)
    try:
        new.replace(file)
    except OSError as error:
        raise _unusable("write", file, error) from error


def _write(file: Path, how: int, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | how, 0o600), "w", encoding="utf-8") as opened:
            owner_only(opened.fileno())
            opened.write(text)
    except OSError as error:
        raise _unusable("write", file, error) from error


def _unusable(what: str, file: Path, error: OSError) -> InvalidParameter:
    return InvalidParameter(f"cannot {what} {file}: {error}; {_ELSEWHERE}", parameter="config_folder")
