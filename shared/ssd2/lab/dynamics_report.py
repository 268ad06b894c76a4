"""Report of token changes: a Markdown page with a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssd2.algorithm.timesteps import TRAINED_TIMESTEPS
from ssd2.evaluation.page import write_page
from ssd2.lab.dynamics import RANGES, Dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME = "dynamics"
"""Of the report's files."""

TITLES = {"pair": "The pair", "algorithm_1": "Algorithm 1"}
"""Titles of what is watched, by their keys in --json."""


def write_dynamics_report(folder: Path, seen: Mapping[str, Dynamics], answers: int, seed: int, command: str) -> Path:
    """Write dynamics.md and dynamics.svg.

    Args:
        folder: made if missing.
        seen: measured changes, by the keys of `TITLES`.
        answers: number of answers watched of each.
        seed: of items and decodes.
        command: that makes the same report again.

    Returns:
        The Markdown file.

    Raises:
        InvalidParameter: if the folder cannot be written to, or the plotting package is missing.
    """
    (some, *_) = seen.values()
    text = f"""# When tokens change

How often does a token change in each fifth of the timesteps (§3.1)?

![Tokens that change, by timestep](dynamics.svg)

{dynamics_table(seen)}

Questions with the fact first, {answers} answers each, seed {seed}, {len(some.timesteps)} timesteps a block. A token
changes where the argmax of the ensembled logits is not that of the timestep before. "The pair" is decoded as it was
measured. "Algorithm 1" is the pair of the order-free relation, trained with the paper's objective, each model fed back
its own prediction. Made by:
```
{command}
```
"""
    return write_page(folder, NAME, text, (9, 3), lambda figure: _draw_dynamics(figure, seen))


def dynamics_table(seen: Mapping[str, Dynamics]) -> str:
    """Return a table of how often a token changes, a row per fifth of the timesteps."""
    rows = [f"| timesteps | {' | '.join(f'{TITLES[name]}: changes a token' for name in seen)} |"]
    rows.append("|---" * (1 + len(seen)) + "|")
    by_range = zip(*(one.changes_by_range() for one in seen.values()), strict=True)
    for index, changes in enumerate(by_range):
        cells = " | ".join(f"{one:.3f}" for one in changes)
        rows.append(f"| ({0.8 - 0.2 * index:.1f}T, {1 - 0.2 * index:.1f}T] | {cells} |")
    return "\n".join(rows)


def _draw_dynamics(figure: Figure, seen: Mapping[str, Dynamics]) -> None:
    """Plot changes by fifth, then changed and settled tokens over t, from T down."""
    by_range, changed, settled = figure.subplots(1, 3)
    ends = [f"{1 - 0.2 * index:.1f}–{0.8 - 0.2 * index:.1f}" for index in range(RANGES)]
    width = 0.8 / len(seen)
    for number, (name, dynamics) in enumerate(seen.items()):
        t = [timestep / TRAINED_TIMESTEPS for timestep in dynamics.timesteps]
        places = [index + number * width for index in range(RANGES)]
        by_range.bar(places, dynamics.changes_by_range(), width, align="edge", label=TITLES[name])
        changed.plot(t[1:], dynamics.changed)
        settled.plot(t, dynamics.settled)
    by_range.set(title="changes a token, by fifth", xlabel="t / T")
    by_range.set_xticks([index + 0.4 for index in range(RANGES)], ends, fontsize="small")
    by_range.legend()
    changed.set(title="changed since the timestep before", xlabel="t / T", ylabel="share of tokens")
    settled.set(title="already what the block ends with", xlabel="t / T", ylim=(-0.03, 1.03))
    for panel in (changed, settled):
        panel.set(xlim=(1, 0), xticks=[1, 0.8, 0.6, 0.4, 0.2, 0])
        panel.grid(alpha=0.3)
