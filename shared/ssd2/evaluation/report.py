"""An experiment's results as Markdown, with a plot beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssd2.errors import InvalidParameter
from ssd2.evaluation.experiments import Experiment
from ssd2.evaluation.runner import Result

METRICS = {
    "joint": "two-source: both values",
    "exact": "two-source: word for word",
    "private": "private",
    "public": "public",
}
"""Columns of the table and panels of the plot, by their names in `Accuracy`."""


def write_report(folder: Path, experiment: Experiment, results: Sequence[Result], command: str) -> Path:
    """Write NAME.md and NAME.svg.

    Args:
        folder: made if missing.
        experiment: what was compared.
        results: one a setting, in order.
        command: what makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _plot(folder / f"{experiment.name}.svg", experiment, results)
        file = folder / f"{experiment.name}.md"
        file.write_text(_markdown(experiment, results, command), encoding="utf-8")
    except OSError as error:
        raise InvalidParameter(f"cannot write a report to {folder}: {error}; give another --out") from error
    return file


def as_table(results: Sequence[Result]) -> str:
    """Shares with their 95% intervals, a row a setting."""
    rows = [f"| | {' | '.join(METRICS.values())} | s an answer |", "|---" * (len(METRICS) + 2) + "|"]
    for result in results:
        cells = [_with_interval(result, metric) for metric in METRICS]
        rows.append(f"| {result.label} | {' | '.join(cells)} | {result.seconds_per_answer:.3f} |")
    return "\n".join(rows)


def _with_interval(result: Result, metric: str) -> str:
    low, high = result.interval(metric)
    return f"{getattr(result.accuracy, metric):.3f} ({low:.3f}–{high:.3f})"


def _markdown(experiment: Experiment, results: Sequence[Result], command: str) -> str:
    setting = results[0].setting
    return f"""# {experiment.title}

{experiment.question}

![{experiment.title}]({experiment.name}.svg)

{as_table(results)}

Shares of right answers to {setting["items"]} unseen items of each kind, seed {setting["seed"]}, with 95% intervals
(Wilson). Seconds are wall time of batched answers on the machine that made this report.

Core model {setting["core_sha256"][:12]}, user model {setting["user_sha256"][:12]}. Made by:
```
{command}
```
"""


def _plot(file: Path, experiment: Experiment, results: Sequence[Result]) -> None:
    """A panel a metric, the settings along the axis, the interval as a bar."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidParameter(
            "a report takes the matplotlib package; install it with: pip install 'slingshot[train]'"
        ) from error
    with mpl.rc_context({"svg.hashsalt": "slingshot", "font.size": 8}):
        figure = Figure(figsize=(9, 0.9 + 0.22 * len(results)), layout="constrained")
        panels = figure.subplots(1, len(METRICS), sharey=True)
        places = range(len(results))
        for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
            shares = [getattr(result.accuracy, metric) for result in results]
            intervals = [result.interval(metric) for result in results]
            below = [share - low for share, (low, _) in zip(shares, intervals, strict=True)]
            above = [high - share for share, (_, high) in zip(shares, intervals, strict=True)]
            panel.errorbar(shares, places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
            panel.set(title=title, xlim=(-0.03, 1.03), yticks=places, yticklabels=[r.label for r in results])
            panel.grid(axis="x", alpha=0.3)
        panels[0].invert_yaxis()
        figure.savefig(file, metadata={"Date": None})
