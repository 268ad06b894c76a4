"""Report of the claim's measurement: a Markdown page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd2.demo.relation.text import ORDERS
from ssd2.evaluation.page import write_page
from ssd2.lab.claim import (
    ALPHA,
    ALPHAS,
    DECODINGS,
    FEEDBACKS,
    LAMBDA,
    LAMBDAS,
    SWEPT,
    Comparison,
    Row,
    Setting,
    compare,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINED = ("algorithm 1", "control", "partner")
TO_THE_END = {"8 to 0": 8, "25 to 0": 25, "42 to 0": 42, "100 to 0": 100}
"""Decodings along an axis of the plot, by their timesteps."""

_MARKERS = {"autoregressive": "s", "algorithm 1": "o", "partner": "^"}

_Rows = dict[Setting, Row]


def write_claim_report(folder: Path, rows: Sequence[Row], seed: int, command: str) -> Path:
    """Write claim.md and claim.svg.

    Args:
        folder: made if missing.
        rows: as measured.
        seed: of items and decodes.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    text = f"""# Two values in one block, in either order

Which pair answers where the fact stands before the place, and what does it cost where it stands behind?

![Right answers by λ and by timesteps](claim.svg)

{claim_tables(rows)}

An answer is right if both values are. Shares of {len(rows[0].answers[0].right)} items of each order, seed {seed}, a
mean over the training seeds; in parentheses a 95% interval (Wilson) over the items of all training seeds, in brackets
the lowest and the highest training seed. λ {LAMBDA:g}, α {ALPHA:g}, where no others are named. Made by:
```
{command}
```
"""
    return write_page(
        folder, "claim", text, (10, 5.5), lambda figure: _draw(figure, {row.setting: row for row in rows})
    )


def claim_tables(rows: Sequence[Row]) -> str:
    """Return the tables of the measurement, in Markdown."""
    by_setting = {row.setting: row for row in rows}
    parts = []
    for order in ORDERS:
        parts += [f"## {order.capitalize()} order, by λ and α", _sweep_table(by_setting, order)]
    for order in ORDERS:
        parts += [f"## {order.capitalize()} order, by timesteps and core", _decoding_table(by_setting, order)]
    if compared := compare(rows):
        parts += ["## A partner's feedback against the control, answer by answer", _comparison_table(compared)]
    return "\n\n".join(parts)


def _sweep_table(rows: _Rows, order: str) -> str:
    lambdas = (0.0, *LAMBDAS, 1.0)
    lines = [
        "| | " + " | ".join({0.0: "core alone", 1.0: "user alone"}.get(x, f"λ {x:g}") for x in lambdas) + " |",
        "|---" * (len(lambdas) + 1) + "|",
    ]
    for system, decoding in SWEPT.items():
        for alpha in ALPHAS:
            line = [_swept(rows, system, order, decoding, x, alpha) for x in lambdas]
            if any(line):
                lines.append(f"| {system}, α {alpha:g} | {' | '.join(map(_cell, line))} |")
    return "\n".join(lines)


def _swept(
    rows: _Rows, system: str, order: str, decoding: tuple[str, str], lambda_user: float, alpha: float
) -> Row | None:
    """Find a row of the sweep; without the user model there is no α."""
    return rows.get(Setting(system, order, *decoding, lambda_user, alpha if lambda_user else 0.0))


def _decoding_table(rows: _Rows, order: str) -> str:
    systems = (*TRAINED, "experts")
    lines = [f"| timesteps, fed back | {' | '.join(systems)} | a block takes |", "|---" * (len(systems) + 2) + "|"]
    for decoding in DECODINGS:
        for feedback in FEEDBACKS:
            found = [rows.get(Setting(system, order, decoding, feedback)) for system in systems]
            taken = ", ".join(dict.fromkeys(f"{row.timesteps:.1f}" for row in found if row))
            lines.append(f"| {decoding}, {feedback} | {' | '.join(map(_cell, found))} | {taken} |")
    return "\n".join(lines)


def _comparison_table(compared: Sequence[Comparison]) -> str:
    lines = ["| order | timesteps | fed back | only partner right | only control right | largest p |", "|---" * 6 + "|"]
    for one in compared:
        *names, only_partner, only_control, p = astuple(one)
        lines.append(f"| {' | '.join(names)} | {only_partner} | {only_control} | {p:.2g} |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    low, high = row.interval
    seeds = f" [{min(row.shares):.3f}–{max(row.shares):.3f}]" if len(row.shares) > 1 else ""
    return f"{row.mean:.3f} ({low:.3f}–{high:.3f}){seeds}"


def _draw(figure: Figure, rows: _Rows) -> None:
    """Draw a row of panels an order: right answers by λ, and by timesteps with each kind of feedback."""
    panels = figure.subplots(len(ORDERS), 1 + len(FEEDBACKS), sharey=True, squeeze=False)
    for order, (by_lambda, *by_timesteps) in zip(ORDERS, panels, strict=True):
        _draw_sweep(by_lambda, rows, order)
        for feedback, panel in zip(FEEDBACKS, by_timesteps, strict=True):
            _draw_timesteps(panel, rows, order, feedback)
        by_lambda.set(ylabel=order, ylim=(-0.03, 1.03))
    figure.legend(*panels[-1][0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    figure.legend(*panels[-1][1].get_legend_handles_labels(), loc="outside lower right", ncols=3)


def _draw_sweep(panel: Axes, rows: _Rows, order: str) -> None:
    for system, decoding in SWEPT.items():
        for alpha in ALPHAS:
            found = [_swept(rows, system, order, decoding, x, alpha) for x in LAMBDAS]
            style = {"marker": _MARKERS[system], "linestyle": "-" if alpha else "--"}
            _draw_line(panel, LAMBDAS, found, f"{system}, α {alpha:g}", style)
    panel.set(title="by λ", xlabel="λ_user", xticks=LAMBDAS)
    panel.grid(alpha=0.3)


def _draw_timesteps(panel: Axes, rows: _Rows, order: str, feedback: str) -> None:
    for system in TRAINED:
        found = [rows.get(Setting(system, order, decoding, feedback)) for decoding in TO_THE_END]
        _draw_line(panel, tuple(TO_THE_END.values()), found, system, {"marker": "o"})
    panel.set(title=f"by timesteps down to 0, {feedback} fed back", xlabel="timesteps", xscale="log")
    panel.set_xticks(list(TO_THE_END.values()), list(map(str, TO_THE_END.values())), minor=False)
    panel.minorticks_off()
    panel.grid(alpha=0.3)


def _draw_line(
    panel: Axes, places: Sequence[float], rows: Sequence[Row | None], label: str, style: dict[str, Any]
) -> None:
    """Draw the rows that there are, with their intervals."""
    found = [(place, row) for place, row in zip(places, rows, strict=True) if row]
    if not found:
        return
    means = [row.mean for _, row in found]
    bars = [[row.mean - row.interval[0] for _, row in found], [row.interval[1] - row.mean for _, row in found]]
    panel.errorbar([place for place, _ in found], means, yerr=bars, label=label, markersize=3, capsize=2, **style)
