"""Report of an experiment: a Markdown page with a plot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.evaluation.costs import COST_COLUMNS
from ssd2.evaluation.experiments import ALPHAS, LAMBDAS, Experiment
from ssd2.evaluation.page import write_page
from ssd2.evaluation.paired import Discordant
from ssd2.evaluation.result import Result
from ssd2.evaluation.rows import ROWS
from ssd2.evaluation.runner import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_COLUMNS = ("logits, bytes a timestep", "timesteps proven exact")
PANELS_A_LINE = 3


@dataclass(frozen=True)
class Line:
    """One setting of a pair, on the rows that are measured so far.

    Attributes:
        label: of the setting.
        results: by row.
    """

    label: str
    results: Mapping[str, Result]

    @property
    def any(self) -> Result:
        """One of the results, for what is the same in all."""
        return next(iter(self.results.values()))

    @property
    def family(self) -> str:
        """Family of the pair."""
        return str(self.any.setting["family"])

    def mean(self, column: str) -> float:
        """Mean of a column over the rows."""
        values = [getattr(result, column) for result in self.results.values()]
        return float(sum(values) / len(values))

    def as_json(self) -> dict[str, Any]:
        """Return the line's part of --json."""
        shares = {
            row: {"share": result.share, "n": result.items, "interval_95": list(result.interval)}
            for row, result in self.results.items()
        }
        costs = {name: self.mean(name) for name in (*COST_COLUMNS, "seconds_per_answer")}
        return {"label": self.label, "family": self.family, **shares, **costs}


def lines_of(cells: Sequence[Cell], results: Mapping[int, Result]) -> list[Line]:
    """Put results together, a line per pair and setting that has any.

    Args:
        cells: that are run.
        results: by the numbers of their cells, as far as they have come.
    """
    lines: dict[tuple[int, str], dict[str, Result]] = {}
    for number, cell in enumerate(cells):
        if number in results:
            lines.setdefault((id(cell.pair), cell.setting.label), {})[cell.row] = results[number]
    return [Line(label, found) for (_, label), found in lines.items()]


def write_report(folder: Path, experiment: Experiment, lines: Sequence[Line], total: int, command: str) -> Path:
    """Write an experiment's NAME.md and NAME.svg.

    Args:
        folder: made if missing.
        experiment: that was run.
        lines: one a setting, in order, as far as they have come.
        total: how many there will be.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    text = _markdown(experiment, lines, total, command)
    if experiment.name == "weights":
        return write_page(folder, experiment.name, text, (7, 3.2), lambda figure: _draw_by_lambda(figure, lines))
    height = -(-(len(experiment.rows) + 1) // PANELS_A_LINE) * (0.9 + 0.22 * len(lines))
    return write_page(
        folder, experiment.name, text, (9, height), lambda figure: _draw_shares(figure, experiment, lines)
    )


def as_table(experiment: Experiment, lines: Sequence[Line]) -> str:
    """Return a table of shares with 95% intervals, a line per setting, with costs of a block where they differ.

    `FORMAT_COLUMNS` are included where they were counted.
    """
    costs, names = _differing_costs(lines), _names(lines)
    columns = [*(ROWS[row].title for row in experiment.rows), *costs.values()]
    columns += [*(FORMAT_COLUMNS if experiment.counts_exact else ()), "s an answer"]
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, line in zip(names, lines, strict=True):
        cells = [_with_interval(line.results.get(row)) for row in experiment.rows]
        cells += [f"{line.mean(cost):.1f}" for cost in costs]
        if experiment.counts_exact:
            cells += [f"{line.any.frame_bytes:,}", f"{line.mean('exact'):.3f}"]
        rows.append(f"| {name} | {' | '.join(cells)} | {line.mean('seconds_per_answer'):.3f} |")
    return "\n".join(rows)


def comparison(experiment: Experiment, lines: Sequence[Line]) -> str:
    """Return a table of every setting against the reference, item by item; "" without a reference."""
    reference = next((line for line in lines if line.label == experiment.reference), None)
    if reference is None:
        return ""
    columns = [ROWS[row].title for row in experiment.rows]
    table = [f"| against {reference.label} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for line in lines:
        if line is not reference:
            cells = [_compared(line.results.get(row), reference.results.get(row)) for row in experiment.rows]
            table.append(f"| {line.label} | {' | '.join(cells)} |")
    return "\n".join(table)


def _compared(result: Result | None, reference: Result | None) -> str:
    if result is None or reference is None:
        return "–"
    pair = Discordant.of(result.outcome.right, reference.outcome.right)
    difference = result.share - reference.share
    return f"{difference:+.3f} ({pair.only_first} gained, {pair.only_second} lost, p {pair.p_value:.2g})"


def _differing_costs(lines: Sequence[Line]) -> dict[str, str]:
    """Return `COST_COLUMNS` if blocks took different numbers of timesteps, or of logits."""
    taken = {line.mean(cost) for line in lines for cost in COST_COLUMNS}
    return COST_COLUMNS if len(taken) > 1 and len(_families(lines)) == 1 else {}


def _families(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.family for line in lines))


def _names(lines: Sequence[Line]) -> list[str]:
    """Return names of the lines: their labels, with the family if there are several."""
    return [f"{line.family}, {line.label}" if len(_families(lines)) > 1 else line.label for line in lines]


def _with_interval(result: Result | None) -> str:
    if result is None:
        return "–"
    low, high = result.interval
    return f"{result.share:.3f} ({low:.3f}–{high:.3f})"


def _markdown(experiment: Experiment, lines: Sequence[Line], total: int, command: str) -> str:
    setting = lines[0].any.setting
    is_done = len(lines) == total and all(len(line.results) == len(experiment.rows) for line in lines)
    unfinished = "" if is_done else f"\n{len(lines)} of {total} settings are measured so far.\n"
    pairs = {
        (line.family, line.any.setting["core_sha256"][:12], line.any.setting["user_sha256"][:12]) for line in lines
    }
    models = "\n".join(f"- {family}: core model {core}, user model {user}" for family, core, user in sorted(pairs))
    compared = comparison(experiment, lines)
    against = f"\nThe same items, with what only one of two settings has right (p: exact sign test):\n\n{compared}\n"
    return f"""# {experiment.title}

{experiment.question}

![{experiment.title}]({experiment.name}.svg)

{as_table(experiment, lines)}
{unfinished}{against if compared else ""}
Shares of right answers to {setting["items"]} unseen items of each row, seed {setting["seed"]}, with 95% intervals
(Wilson). Seconds are wall time of batched answers on the machine that made this report.

Models, by the beginning of their SHA-256:

{models}

Made by:
```
{command}
```
"""


def _draw_shares(figure: Figure, experiment: Experiment, lines: Sequence[Line]) -> None:
    """Draw a panel per row, with settings along the axis and intervals as bars; then differing costs of a block."""
    costs, names = _differing_costs(lines), _names(lines)
    count = len(experiment.rows) + bool(costs)
    panels = figure.subplots(-(-count // PANELS_A_LINE), min(count, PANELS_A_LINE), sharey=True, squeeze=False).ravel()
    for panel, row in zip(panels, experiment.rows, strict=False):
        measured = [(place, line.results[row]) for place, line in enumerate(lines) if row in line.results]
        shares, below, above = _bars([result for _, result in measured])
        places = [place for place, _ in measured]
        panel.errorbar(shares, places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.set(title=ROWS[row].title, xlabel="share of right answers", xlim=(-0.03, 1.03))
    for (cost, title), marker in zip(costs.items(), "ox", strict=False):
        values = [line.mean(cost) for line in lines]
        panels[count - 1].plot(values, range(len(lines)), marker, markersize=4, label=title)
    if costs:
        panels[count - 1].set(title="a block takes", xlim=(0, None))
        figure.legend(*panels[count - 1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
        panel.set_yticks(range(len(lines)), names)
    panels[0].invert_yaxis()


def _draw_by_lambda(figure: Figure, lines: Sequence[Line]) -> None:
    """Draw a panel per row with λ along the axis and a line per family and α; λ = 0, without α, is on both."""
    rows = list(dict.fromkeys(row for line in lines for row in line.results))
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False).ravel()
    for row, panel in zip(rows, panels, strict=True):
        for family, alpha in itertools.product(_families(lines), ALPHAS):
            found = [line.results[row] for line in lines if line.family == family and row in line.results]
            of_alpha = [one for one in found if one.setting["alpha"] == alpha or one.setting["lambda_user"] == 0]
            of_alpha.sort(key=lambda result: float(result.setting["lambda_user"]))
            shares, below, above = _bars(of_alpha)
            panel.errorbar(
                [result.setting["lambda_user"] for result in of_alpha],
                shares,
                yerr=[below, above],
                marker="o" if family == "ssd-2" else "s",
                linestyle="-" if alpha else "--",
                markersize=3,
                capsize=2,
                label=f"{family}, α {alpha:g}",
            )
        panel.set(title=ROWS[row].title, xlabel="λ_user", ylim=(-0.03, 1.03), xticks=LAMBDAS)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of right answers")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _bars(results: Sequence[Result]) -> tuple[list[float], list[float], list[float]]:
    """Return shares, and the reach of their intervals below and above."""
    shares = [result.share for result in results]
    below = [result.share - result.interval[0] for result in results]
    above = [result.interval[1] - result.share for result in results]
    return shares, below, above
