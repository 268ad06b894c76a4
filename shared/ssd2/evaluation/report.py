"""Report of an experiment: a Markdown page with a plot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.evaluation.costs import COST_COLUMNS
from ssd2.evaluation.experiments import ALPHAS, LAMBDAS, Experiment
from ssd2.evaluation.page import write_page
from ssd2.evaluation.runner import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {
    "joint": "two-source: both values",
    "exact": "two-source: word for word",
    "private": "private",
    "public": "public",
}
"""Columns of the table and panels of the plot, by their names in `Accuracy`."""

FORMAT_COLUMNS = ("logits, bytes a timestep", "timesteps proven exact")


def write_report(folder: Path, experiment: Experiment, results: Sequence[Result], total: int, command: str) -> Path:
    """Write an experiment's NAME.md and NAME.svg.

    Args:
        folder: made if missing.
        experiment: that was run.
        results: one a setting, in order, as far as they have come.
        total: how many there will be.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    text = _markdown(experiment, results, total, command)
    if experiment.name == "two-source":
        return write_page(folder, experiment.name, text, (9, 2.8), lambda figure: _draw_by_lambda(figure, results))
    size = (9, 0.9 + 0.22 * len(results))
    return write_page(folder, experiment.name, text, size, lambda figure: _draw_shares(figure, results))


def as_table(results: Sequence[Result]) -> str:
    """Return a table of shares with 95% intervals, a row per setting, with costs of a block where they differ.

    `FORMAT_COLUMNS` are included where they were counted.
    """
    metrics, costs, names = _measured(results), _differing_costs(results), _names(results)
    has_formats = all(result.exact is not None for result in results)
    columns = [*metrics.values(), *costs.values(), *(FORMAT_COLUMNS if has_formats else ()), "s an answer"]
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, result in zip(names, results, strict=True):
        cells = [_with_interval(result, metric) for metric in metrics]
        cells += [f"{getattr(result, cost):.1f}" for cost in costs]
        if has_formats:
            cells += [f"{result.frame_bytes:,}", f"{result.exact:.3f}"]
        rows.append(f"| {name} | {' | '.join(cells)} | {result.seconds_per_answer:.3f} |")
    return "\n".join(rows)


def _measured(results: Sequence[Result]) -> dict[str, str]:
    """Return those of `METRICS` that were measured."""
    return {metric: title for metric, title in METRICS.items() if metric in results[0].shares}


def _differing_costs(results: Sequence[Result]) -> dict[str, str]:
    """Return `COST_COLUMNS` if every result has them and blocks took different numbers of timesteps."""
    taken = {result.timesteps_per_block for result in results}
    return COST_COLUMNS if len(taken) > 1 and None not in taken else {}


def _names(results: Sequence[Result]) -> list[str]:
    """Return names of the results: their labels, with the family if there are several."""
    families = {result.setting["family"] for result in results}
    return [f"{r.setting['family']}, {r.label}" if len(families) > 1 else r.label for r in results]


def _with_interval(result: Result, metric: str) -> str:
    low, high = result.interval(metric)
    return f"{result.shares[metric]:.3f} ({low:.3f}–{high:.3f})"


def _markdown(experiment: Experiment, results: Sequence[Result], total: int, command: str) -> str:
    setting = results[0].setting
    unfinished = "" if len(results) == total else f"\n{len(results)} of {total} settings are measured so far.\n"
    pairs = {(r.setting["family"], r.setting["core_sha256"][:12], r.setting["user_sha256"][:12]) for r in results}
    models = "\n".join(f"- {family}: core model {core}, user model {user}" for family, core, user in sorted(pairs))
    return f"""# {experiment.title}

{experiment.question}

![{experiment.title}]({experiment.name}.svg)

{as_table(results)}
{unfinished}
Shares of right answers to {setting["items"]} unseen items of each kind, seed {setting["seed"]}, with 95% intervals
(Wilson). Seconds are wall time of batched answers on the machine that made this report.

Models, by the beginning of their SHA-256:

{models}

Made by:
```
{command}
```
"""


def _draw_shares(figure: Figure, results: Sequence[Result]) -> None:
    """Draw a panel per metric, with settings along the axis and intervals as bars; then differing costs of a block."""
    metrics, costs, names = _measured(results), _differing_costs(results), _names(results)
    panels = figure.subplots(1, len(metrics) + bool(costs), sharey=True)
    places = range(len(results))
    for panel, (metric, title) in zip(panels, metrics.items(), strict=False):
        shares, below, above = _bars(results, metric)
        panel.errorbar(shares, places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.set(title=title, xlim=(-0.03, 1.03), yticks=places, yticklabels=names)
    for (cost, title), marker in zip(costs.items(), "ox", strict=False):
        panels[-1].plot([getattr(result, cost) for result in results], places, marker, markersize=4, label=title)
    if costs:
        panels[-1].set(title="a block takes", xlim=(0, None))
        panels[-1].legend()
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()


def _draw_by_lambda(figure: Figure, results: Sequence[Result]) -> None:
    """Draw a panel per metric with λ along the axis and a line per family and α; λ = 0, without α, is on both."""
    families = dict.fromkeys(result.setting["family"] for result in results)
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for (metric, title), panel in zip(METRICS.items(), panels, strict=True):
        for family, alpha in itertools.product(families, ALPHAS):
            line = [
                result
                for result in results
                if result.setting["family"] == family
                and (result.setting["alpha"] == alpha or result.setting["lambda_user"] == 0)
            ]
            line.sort(key=lambda result: float(result.setting["lambda_user"]))
            shares, below, above = _bars(line, metric)
            panel.errorbar(
                [result.setting["lambda_user"] for result in line],
                shares,
                yerr=[below, above],
                marker="o" if family == "ssd-2" else "s",
                linestyle="-" if alpha else "--",
                markersize=3,
                capsize=2,
                label=f"{family}, α {alpha:g}",
            )
        panel.set(title=title, xlabel="λ_user", ylim=(-0.03, 1.03), xticks=LAMBDAS)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _bars(results: Sequence[Result], metric: str) -> tuple[list[float], list[float], list[float]]:
    """Return shares, and the reach of their intervals below and above."""
    shares = [result.shares[metric] for result in results]
    intervals = [result.interval(metric) for result in results]
    below = [share - low for share, (low, _) in zip(shares, intervals, strict=True)]
    above = [high - share for share, (_, high) in zip(shares, intervals, strict=True)]
    return shares, below, above
