"""Results of the benchmark `documents`: shares of right answers by group and setting, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.algorithm.params import CollaborationParams
from ssd2.errors import InvalidParameter
from ssd2.evaluation.documents.answering import CORE_ALONE, USER_ALONE, Answer, Run
from ssd2.evaluation.documents.questions import Question
from ssd2.evaluation.documents.scorer import is_right
from ssd2.evaluation.intervals import wilson_interval
from ssd2.evaluation.page import write_page
from ssd2.evaluation.paired import Discordant
from ssd2.models.layouts import ANSWER, AnswerLayout, conclusion

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
        layout: of the answers.
        collaboration: λ and α.
        outcomes: whether its answers were right, by group of `GROUPS`; a group without a question is left out.
        seconds_per_answer: wall time, the answers of a batch side by side.
    """

    layout: AnswerLayout
    collaboration: CollaborationParams
    outcomes: dict[str, list[bool]]
    seconds_per_answer: float

    @property
    def shares(self) -> dict[str, Share]:
        """Right answers by group."""
        return {name: Share(sum(right), len(right)) for name, right in self.outcomes.items()}

    @property
    def is_together(self) -> bool:
        """True if both models take part."""
        return self.collaboration.uses_core and self.collaboration.uses_user

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
        named = {"label": self.label, "answer_layout": self.layout, **setting}
        return {**named, "shares": shares, "seconds_per_answer": self.seconds_per_answer}


@dataclass(frozen=True)
class Comparison:
    """Both models together against the better one alone, on the same questions.

    Attributes:
        group: of the questions, one of `GROUPS`.
        together: setting in which both take part.
        alone: the model alone, in whichever layout, with the most right answers to them.
    """

    group: str
    together: Measured
    alone: Measured

    @property
    def discordant(self) -> Discordant:
        """Questions that only together, and those that only the model alone has right."""
        return Discordant.of(self.together.outcomes[self.group], self.alone.outcomes[self.group])

    def as_json(self) -> dict[str, Any]:
        """Return the comparison's part of the results."""
        sides = {
            name: {"answer_layout": one.layout, "label": one.label, "right": one.shares[self.group].right}
            for name, one in (("together", self.together), ("alone", self.alone))
        }
        counts = {"only_together": self.discordant.only_first, "only_alone": self.discordant.only_second}
        return {"group": self.group, **sides, **counts, "p_value": self.discordant.p_value}


def measure(
    layout: AnswerLayout, collaboration: CollaborationParams, questions: Sequence[Question], answers: Sequence[Answer]
) -> Measured:
    """Score the answers of one setting."""
    right = {
        question.id: is_right(question, conclusion(answer.text, layout))
        for question, answer in zip(questions, answers, strict=True)
    }
    of_groups = {name: [right[one.id] for one in questions if belongs(one)] for name, belongs in GROUPS.items()}
    outcomes = {name: of_group for name, of_group in of_groups.items() if of_group}
    seconds = round(sum(answer.seconds for answer in answers) / len(answers), 3)
    return Measured(layout, collaboration, outcomes, seconds)


def comparisons(measured: Sequence[Measured]) -> list[Comparison]:
    """Compare every setting of both models with the better one alone, in the groups that are drawn."""
    alone = [one for one in measured if one.collaboration in (CORE_ALONE, USER_ALONE)]
    together = [one for one in measured if one.is_together]
    if not alone:
        return []
    return [
        Comparison(name, one, max(alone, key=lambda by_itself: by_itself.shares[name].right))
        for name in _drawn(measured)
        for one in together
    ]


def found_share(run: Run) -> Share | None:
    """Share of the factual English questions whose whole answer stands in the passages given; None without such."""
    is_there = []
    for question in filter(GROUPS["factual, English"], run.questions):
        allowed = replace(question, forbidden=())  # what an answer may not say a passage may
        is_there.append(is_right(allowed, " ".join(run.passages[question.id])))
    return Share(sum(is_there), len(is_there)) if is_there else None


def as_tables(measured: Sequence[Measured]) -> str:
    """Return a table of shares for each layout, and one of the comparisons with the models alone."""
    tables = []
    for layout, of_layout in groupby(measured, lambda one: one.layout):
        tables.append(f"Answer layout {layout}:\n\n{_table_of_shares(list(of_layout))}")
    if compared := comparisons(measured):
        tables.append(
            "Together against the better of the two alone, whichever layout that has, question by question "
            f"(exact McNemar test, two-sided):\n\n{_table_of(compared)}"
        )
    return "\n\n".join(tables)


def _table_of_shares(measured: Sequence[Measured]) -> str:
    """Return a table of shares with 95% intervals, a row per group and a column per setting."""
    rows = [f"| | n | {' | '.join(one.label for one in measured)} |", "|---" * (len(measured) + 2) + "|"]
    for name, share in measured[0].shares.items():
        rows.append(f"| {name} | {share.items} | {' | '.join(str(one.shares[name]) for one in measured)} |")
    rows.append(f"| s an answer | | {' | '.join(f'{one.seconds_per_answer:.2f}' for one in measured)} |")
    return "\n".join(rows)


def _table_of(compared: Sequence[Comparison]) -> str:
    """Return a table of comparisons, a row each."""
    return "\n".join(
        ["| | together | right | alone | right | only together | only alone | p |", "|---" * 8 + "|"]
    ) + "".join(f"\n{row}" for row in map(_row_of, compared))


def _row_of(one: Comparison) -> str:
    sides = (f"{side.layout}, {side.label} | {side.shares[one.group].value:.2f}" for side in (one.together, one.alone))
    between = one.discordant
    counts = f"{between.only_first} | {between.only_second} | {between.p_value:.2g}"
    return f"| {one.group} | {' | '.join(sides)} | {counts} |"


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
        "paired": [one.as_json() for one in comparisons(measured)],
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


def _markdown(run: Run, measured: Sequence[Measured], total: int, command: str) -> str:
    given = {
        "given": "The user model was given the right document, whole.",
        "search": "The user model was given what the agent's search over the whole folder found.",
    }[run.mode]
    unfinished = "" if len(measured) == total else f"\n{len(measured)} of {total} settings are measured so far.\n"
    share, system = found_share(run), f"\nSystem prompt: {run.system}\n" if run.system else ""
    is_fact_first = any(one.layout == "fact-first" for one in measured)
    scored = (
        f'\nOf an answer with the fact first only what stands behind "{ANSWER}" is scored.\n' if is_fact_first else ""
    )
    found = f"\nThe whole answer stands in the passages of {share} of the factual English questions.\n"
    return f"""# Everyday documents, and notes that need the world's knowledge

{given} The core is never given any. Beside a real two-source question stands its note.

![Shares of right answers]({NAME}-{run.mode}.svg)

{as_tables(measured)}
{unfinished}{found if share else ""}{scored}{system}
Shares of right answers with 95% intervals (Wilson); greedy decoding, at most {run.decoding.max_tokens} tokens, weights
in {run.precision}. Seconds are wall time of batched answers on the machine that made this report. Documents, questions
and scorer are in `shared/ssd2/evaluation/documents`.

Models, by the beginning of their SHA-256: core {run.pair.core.sha256[:12]}, user {run.pair.user.sha256[:12]}.

Made by:
```
{command}
```
"""


def _drawn(measured: Sequence[Measured]) -> list[str]:
    """Names of the groups with a panel; all that there are if none of those has a question."""
    groups = measured[0].outcomes
    return [name for name in _DRAWN if name in groups] or list(groups)


def _draw(figure: Figure, measured: Sequence[Measured]) -> None:
    """Draw a panel per group in `_DRAWN`, with settings along the axis and intervals as bars."""
    names, places = _drawn(measured), range(len(measured))
    labels = [one.label if one.layout == "plain" else f"{one.layout}: {one.label}" for one in measured]
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        shares = [one.shares[name] for one in measured]
        below = [share.value - share.interval[0] for share in shares]
        above = [share.interval[1] - share.value for share in shares]
        panel.errorbar([share.value for share in shares], places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.set(title=name, xlim=(-0.03, 1.03), yticks=places, yticklabels=labels)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
