"""Results of the benchmark `documents`: shares of right answers by group and setting, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.algorithm.params import CollaborationParams
from ssd2.errors import InvalidParameter
from ssd2.evaluation.documents.answering import CORE_ALONE, USER_ALONE, Answer, Run
from ssd2.evaluation.documents.questions import Question
from ssd2.evaluation.documents.scorer import is_right
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.page import write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "documents"
"""Of the report's files."""

GROUPS: dict[str, Callable[[Question], bool]] = {
    "factual, English": lambda question: question.is_factual and question.language == "en",
    "factual, German": lambda question: question.is_factual and question.language == "de",
    "fact": lambda question: question.kind == "fact",
    "date": lambda question: question.kind == "date",
    "sum": lambda question: question.kind == "sum",
    "two documents at once": lambda question: question.kind == "two-documents",
    "nothing there": lambda question: question.kind == "absent",
    "public, beside an irrelevant document": lambda question: question.kind == "public",
    "real two-source": lambda question: question.kind == "two-source",
}
"""Rows of the table; those of one kind are of both languages."""
_DRAWN = tuple(name for name in GROUPS if name.startswith(("factual", "public", "real")))


@dataclass(frozen=True)
class Share:
    """Right answers among some questions."""

    right: int
    items: int

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval (Wilson)."""
        return wilson_interval(self.value, self.items)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f}–{high:.2f})"


@dataclass(frozen=True)
class Measured:
    """Answers of one setting.

    Attributes:
        collaboration: λ and α.
        shares: by their names in `GROUPS`; a group without a question is left out.
        seconds_per_answer: wall time, the answers of a batch side by side.
    """

    collaboration: CollaborationParams
    shares: dict[str, Share]
    seconds_per_answer: float

    @property
    def label(self) -> str:
        """Name of the setting, for a column."""
        if self.collaboration == CORE_ALONE:
            return "core alone (λ 0)"
        if self.collaboration == USER_ALONE:
            return "user alone with the passages (λ 1, α 0)"
        return self.collaboration.label

    def as_json(self) -> dict[str, Any]:
        """Return the setting's part of the results."""
        shares = {
            name: {"right": share.right, "items": share.items, "share": share.value, "interval_95": share.interval}
            for name, share in self.shares.items()
        }
        setting = {"lambda_user": self.collaboration.lambda_user, "alpha": self.collaboration.alpha}
        return {"label": self.label, **setting, "shares": shares, "seconds_per_answer": self.seconds_per_answer}


def measure(collaboration: CollaborationParams, questions: Sequence[Question], answers: Sequence[Answer]) -> Measured:
    """Score the answers of one setting."""
    texts = {question.id: answer.text for question, answer in zip(questions, answers, strict=True)}
    seconds = round(sum(answer.seconds for answer in answers) / len(answers), 3)
    return Measured(collaboration, _shares(questions, texts), seconds)


def found_share(run: Run) -> Share | None:
    """Share of the factual English questions whose whole answer stands in the passages given; None without such."""
    is_there = []
    for question in filter(GROUPS["factual, English"], run.questions):
        allowed = replace(question, forbidden=())  # what an answer may not say a passage may
        is_there.append(is_right(allowed, " ".join(run.passages[question.id])))
    return Share(sum(is_there), len(is_there)) if is_there else None


def as_table(measured: Sequence[Measured]) -> str:
    """Return a table of shares with 95% intervals, a row per group and a column per setting."""
    rows = [f"| | n | {' | '.join(one.label for one in measured)} |", "|---" * (len(measured) + 2) + "|"]
    for name, share in measured[0].shares.items():
        rows.append(f"| {name} | {share.items} | {' | '.join(str(one.shares[name]) for one in measured)} |")
    rows.append(f"| s an answer | | {' | '.join(f'{one.seconds_per_answer:.2f}' for one in measured)} |")
    return "\n".join(rows)


def as_json(run: Run, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the results as one JSON object."""
    return {
        "mode": run.mode,
        "precision": run.precision,
        "core_sha256": run.pair.core.sha256,
        "user_sha256": run.pair.user.sha256,
        "max_tokens": run.decoding.max_tokens,
        "system_prompt": run.system,
        "answer_in_passages": found.value if (found := found_share(run)) else None,
        "results": [one.as_json() for one in measured],
    }


def write_report(folder: Path, run: Run, measured: Sequence[Measured], total: int, command: str) -> Path:
    """Write documents-MODE.md with its plot, and documents-MODE.json.

    Args:
        folder: made if missing.
        run: that was measured.
        measured: one a setting, as far as they have come.
        total: how many there will be.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    name, size = f"{NAME}-{run.mode}", (9, 0.9 + 0.25 * len(measured))
    page = write_page(
        folder, name, _markdown(run, measured, total, command), size, lambda figure: _draw(figure, measured)
    )
    try:
        (folder / f"{name}.json").write_text(json.dumps(as_json(run, measured), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidParameter(f"cannot write to {folder}: {error}; choose another folder", parameter="out") from error
    return page


def _shares(questions: Sequence[Question], texts: dict[str, str]) -> dict[str, Share]:
    shares = {}
    for name, belongs in GROUPS.items():
        right = [is_right(question, texts[question.id]) for question in questions if belongs(question)]
        if right:
            shares[name] = Share(sum(right), len(right))
    return shares


def _markdown(run: Run, measured: Sequence[Measured], total: int, command: str) -> str:
    given = {
        "given": "The user model was given the right document, whole.",
        "search": "The user model was given what the agent's search over the whole folder found.",
    }[run.mode]
    unfinished = "" if len(measured) == total else f"\n{len(measured)} of {total} settings are measured so far.\n"
    share, system = found_share(run), f"\nSystem prompt: {run.system}\n" if run.system else ""
    found = f"\nThe whole answer stands in the passages of {share} of the factual English questions.\n"
    return f"""# Everyday documents, and notes that need the world's knowledge

{given} The core is never given any. Beside a real two-source question stands its note.

![Shares of right answers]({NAME}-{run.mode}.svg)

{as_table(measured)}
{unfinished}{found if share else ""}{system}
Shares of right answers with 95% intervals (Wilson); greedy decoding, at most {run.decoding.max_tokens} tokens, weights
in {run.precision}. Seconds are wall time of batched answers on the machine that made this report. Documents, questions
and scorer are in `shared/ssd2/evaluation/documents`.

Models, by the beginning of their SHA-256: core {run.pair.core.sha256[:12]}, user {run.pair.user.sha256[:12]}.

Made by:
```
{command}
```
"""


def _draw(figure: Figure, measured: Sequence[Measured]) -> None:
    """Draw a panel per group in `_DRAWN`, with settings along the axis and intervals as bars."""
    names = [name for name in _DRAWN if name in measured[0].shares] or list(measured[0].shares)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = range(len(measured))
    for panel, name in zip(panels, names, strict=True):
        shares = [one.shares[name] for one in measured]
        below = [share.value - share.interval[0] for share in shares]
        above = [share.interval[1] - share.value for share in shares]
        panel.errorbar([share.value for share in shares], places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.set(title=name, xlim=(-0.03, 1.03), yticks=places, yticklabels=[one.label for one in measured])
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
