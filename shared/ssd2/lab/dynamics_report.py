"""Report of token changes: a Markdown page with a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.evaluation.page import write_page
from ssd2.lab.dynamics import RANGES, Dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME = "dynamics"
"""Of the report's files."""


def write_dynamics_report(folder: Path, dynamics: Dynamics, answers: int, seed: int, command: str) -> Path:
    """Write dynamics.md and dynamics.svg.

    Args:
        folder: made if missing.
        dynamics: measured changes.
        answers: number of answers watched.
        seed: of items and decodes.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    text = f"""# When tokens change

How often does a token change in each fifth of the timesteps (§3.1)?

![Tokens that change, by timestep](dynamics.svg)

{dynamics_table(dynamics)}

Questions with the fact first, {answers} answers, seed {seed}, {len(dynamics.timesteps)} timesteps a block. A token
changes where the argmax of the ensembled logits is not that of the timestep before. Made by:
```
{command}
```
"""
    return write_page(folder, NAME, text, (9, 3), lambda figure: _draw_dynamics(figure, dynamics))


def dynamics_table(dynamics: Dynamics) -> str:
    """Return a table of how often a token changes, a row per fifth of the timesteps."""
    rows = ["| timesteps | changes a token |", "|---|---|"]
    for index, changes in enumerate(dynamics.changes_by_range()):
        rows.append(f"| ({0.8 - 0.2 * index:.1f}T, {1 - 0.2 * index:.1f}T] | {changes:.3f} |")
    return "\n".join(rows)


def _draw_dynamics(figure: Figure, dynamics: Dynamics) -> None:
    """Plot changes by fifth, then changed and settled tokens over t, from T down."""
    t = [timestep / TRAINED_TIMESTEPS for timestep in dynamics.timesteps]
    by_range, changed, settled = figure.subplots(1, 3)
    ends = [f"{1 - 0.2 * index:.1f}–{0.8 - 0.2 * index:.1f}" for index in range(RANGES)]
    by_range.bar(ends, dynamics.changes_by_range())
    by_range.set(title="changes a token, by fifth", xlabel="t / T")
    changed.plot(t[1:], dynamics.changed)
    changed.set(title="changed since the timestep before", xlabel="t / T", ylabel="share of tokens")
    settled.plot(t, dynamics.settled)
    settled.set(title="already what the block ends with", xlabel="t / T", ylim=(-0.03, 1.03))
    for panel in (changed, settled):
        panel.set(xlim=(1, 0), xticks=[1, 0.8, 0.6, 0.4, 0.2, 0])
        panel.grid(alpha=0.3)
