"""Report of verdicts: a Markdown page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.evaluation.page import write_page
from ssd2.lab.judge import Judge
from ssd2.lab.judge_results import OUTCOMES, ComparisonResult, RatingResult, comparison_table, rating_table
from ssd2.lab.judge_templates import REPORTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATING = """\
Mean ratings on a scale of 10, by the second template of the paper's App. G, with 95% intervals (normal approximation:
too narrow for less than some dozens of answers). The template asks for conciseness and human preference too; as in the
paper these are left out here (`--json` has them). A reply without all ratings is unreadable and counts for nothing."""
_COMPARISON = """\
Shares of pairs with 95% intervals (Wilson), by the first template of the paper's App. G. Each pair is shown in both
orders. A win or a loss is one on which both orders agree; all else is a tie, such as the pairs whose orders disagree.
A pair with a reply that does not begin with two scores is unreadable and counts for nothing."""


def write_rating_report(folder: Path, results: Sequence[RatingResult], judge: Judge, command: str) -> Path:
    """Write rating.md and rating.svg; arguments and errors as in `write_comparison_report`."""
    page = _page("Answers, rated", "rating", rating_table(results), _RATING, judge, command)
    size = (9, 0.9 + 0.25 * len(results))
    return write_page(folder, "rating", page, size, lambda figure: _draw_ratings(figure, results))


def write_comparison_report(folder: Path, results: Sequence[ComparisonResult], judge: Judge, command: str) -> Path:
    """Write comparison.md and comparison.svg.

    Args:
        folder: made if missing.
        results: rows of the table.
        judge: that judged.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    first, second = (sum(getattr(one, f"{place}_preferred") for one in results) for place in ("first", "second"))
    told = f"{_COMPARISON}\nOf all readable replies {first} prefer what they are shown first, {second} the other."
    page = _page("Answers, compared", "comparison", comparison_table(results), told, judge, command)
    size = (7, 0.9 + 0.3 * len(results))
    return write_page(folder, "comparison", page, size, lambda figure: _draw_comparisons(figure, results))


def _page(title: str, name: str, table: str, told: str, judge: Judge, command: str) -> str:
    return f"""# {title}

![{title}]({name}.svg)

{table}

{told}

Judged by {judge.endpoint.model} at {judge.endpoint.host}, temperature {judge.temperature:g}. Made by:
```
{command}
```
"""


def _draw_ratings(figure: Figure, results: Sequence[RatingResult]) -> None:
    """Draw a panel per attribute, with the groups along the axis and intervals as bars."""
    panels = figure.subplots(1, len(REPORTED), sharey=True)
    places = range(len(results))
    for panel, name in zip(panels, REPORTED, strict=True):
        for place, result in enumerate(results):
            if name in result.means:
                panel.plot(result.means[name], place, "o", color="C0", markersize=4)
            if interval := result.intervals.get(name):
                panel.hlines(place, *interval, color="C0", linewidth=1)
        panel.set(title=name, xlim=(-0.3, 10.3), yticks=places, yticklabels=[one.label for one in results])
        panel.margins(y=0.3)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()


def _draw_comparisons(figure: Figure, results: Sequence[ComparisonResult]) -> None:
    """Draw a bar per group: shares of wins, ties and losses."""
    panel, places = figure.subplots(), range(len(results))
    begin = [0.0] * len(results)
    for outcome, color in zip(OUTCOMES, ("C0", "lightgrey", "C3"), strict=True):
        shares = [share[0] if (share := result.share(outcome)) else 0.0 for result in results]
        panel.barh(places, shares, left=begin, color=color, label=outcome)
        begin = [left + share for left, share in zip(begin, shares, strict=True)]
    labels = [f"{result.label} against {result.baseline}" for result in results]
    panel.set(xlim=(0, 1), yticks=places, yticklabels=labels, xlabel="share of pairs")
    panel.invert_yaxis()
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
