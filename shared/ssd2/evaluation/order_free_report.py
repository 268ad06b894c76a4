"""Report of the order-free benchmark: tables, and a Markdown page with a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.evaluation.costs import COST_COLUMNS
from ssd2.evaluation.order_free import SYSTEMS
from ssd2.evaluation.page import write_page
from ssd2.evaluation.rows import ROWS, WITH_THE_FACT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "order-free"
SHOWN = ("lambda_user", "alpha", "steps", "stop", "patience", "self_conditioning", "logits", "items", "seed")
"""Settings below a table."""


def write_order_free_report(folder: Path, report: Mapping[str, Any], command: str) -> Path:
    """Write order-free.md and order-free.svg.

    Args:
        folder: made if missing.
        report: JSON object of the benchmark.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    text = f"""# The order-free benchmark

Which questions can both models answer together, each alone, and a pair that writes token by token?

![The order-free benchmark]({NAME}.svg)

{as_table(report)}

Shares of right answers with 95% intervals (Wilson). Core model {report["settings"]["core_sha256"][:12]}, user model
{report["settings"]["user_sha256"][:12]}. Made by:
```
{command}
```
"""
    return write_page(folder, NAME, text, (7, 4), lambda figure: _draw(figure, report))


def as_table(report: Mapping[str, Any]) -> str:
    """Return the JSON object as Markdown tables: shares with their intervals, then costs and settings."""
    lines = [f"| | n | {' | '.join(SYSTEMS)} |", "|---" * (len(SYSTEMS) + 2) + "|"]
    for name, row in ROWS.items():
        if name not in report:
            continue
        lines.append(_line(f"{name}: {row.title}", report[name]))
        if name == "not_known" and (wrongly := report[name]["false_not_known"]):
            lines.append(_line(f"  said where it is known ({', '.join(WITH_THE_FACT)})", wrongly))
        if name == "long":
            lines += [_line(f"  {slots} slots", report[name][slots]) for slots in ("private", "public")]
    costs = [f"| | {' | '.join(COST_COLUMNS.values())} | s an answer |", "|---" * (len(COST_COLUMNS) + 2) + "|"]
    for system, values in report["costs"].items():
        numbers = [f"{values[cost]:.1f}" for cost in COST_COLUMNS]
        costs.append(f"| {system} | {' | '.join(numbers)} | {values['seconds_per_answer']:.3f} |")
    settings = ", ".join(f"{name} {report['settings'][name]}" for name in SHOWN)
    left_out = report["autoregressive_left_out"]
    notes = [f"No autoregressive pair: {left_out}."] if left_out else []
    return "\n".join([*lines, "", *costs, "", *notes, settings])


def _line(title: str, shares: Mapping[str, Any]) -> str:
    cells = []
    for system in SYSTEMS:
        if shares[system] is None:
            cells.append("–")
        else:
            low, high = shares["interval_95"][system]
            cells.append(f"{shares[system]:.3f} ({low:.3f}–{high:.3f})")
    return f"| {title} | {shares['n']} | {' | '.join(cells)} |"


def _draw(figure: Figure, report: Mapping[str, Any]) -> None:
    """Draw a line per row and a mark per system, with intervals as bars."""
    rows = [row for row in ROWS if row in report]
    panel = figure.subplots()
    for offset, (system, marker) in enumerate(zip(SYSTEMS, "osdx", strict=True)):
        measured = [(place, report[row]) for place, row in enumerate(rows) if report[row][system] is not None]
        shares = [row[system] for _, row in measured]
        below = [max(0.0, row[system] - row["interval_95"][system][0]) for _, row in measured]
        above = [max(0.0, row["interval_95"][system][1] - row[system]) for _, row in measured]
        places = [place + 0.15 * (offset - 1.5) for place, _ in measured]
        panel.errorbar(shares, places, xerr=[below, above], fmt=marker, markersize=4, capsize=2, label=system)
    panel.set_yticks(range(len(rows)), [ROWS[row].title for row in rows])
    panel.set(xlim=(-0.03, 1.03), xlabel="share of right answers")
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4)
