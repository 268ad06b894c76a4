"""`ssd2 lab dynamics`: when in a decode tokens change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from ssd2.cli.options import DEFAULT_LAMBDA, Alpha, AsJson, Core, Lambda, Seed, User, typed_command
from ssd2.demo.paths import CORE, USER

if TYPE_CHECKING:
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.pair import Pair
    from ssd2.lab.dynamics import Dynamics

EXAMPLES = examples("ssd2 lab dynamics --limit 100 --out reports")
STEPS = 200
"""Timesteps per block, unless told otherwise: 40 in each fifth."""


def dynamics(
    limit: Annotated[int, typer.Option(help="Questions to watch, with the fact first.", min=1)] = 50,
    core: Core = CORE,
    user: User = USER,
    lambda_user: Lambda = DEFAULT_LAMBDA,
    alpha: Alpha = 1.0,
    steps: Annotated[int, typer.Option(help="Timesteps per block, from T down to 0.", min=2)] = STEPS,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Count how often tokens change in each fifth of the timesteps (§3.1)."""
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.pair import Pair
    from ssd2.lab.dynamics_report import dynamics_table

    pair = Pair.load(core, user)
    with tqdm(total=limit, unit="answer") as bar:
        seen = watch(pair, CollaborationParams(lambda_user, alpha), limit, steps, seed, out, bar.update)
    typer.echo(json.dumps(seen.as_json()) if as_json else dynamics_table(seen))


def watch(
    pair: Pair,
    collaboration: CollaborationParams,
    limit: int,
    steps: int,
    seed: int,
    out: Path | None,
    on_progress: Callable[[int], object],
) -> Dynamics:
    """Watch answers with the fact first and, with `out`, write the report; a result found there is not computed again.

    Args:
        pair: θ_core and θ_user.
        collaboration: λ and α.
        limit: answers to watch.
        steps: timesteps per block.
        seed: of items and decodes.
        out: folder of result and report; None for none.
        on_progress: told how many answers have come since the last call.
    """
    from ssd2.evaluation.rows import ROWS
    from ssd2.lab.dynamics import dynamics_kept, measure_dynamics
    from ssd2.lab.dynamics_report import NAME, write_dynamics_report

    decoding, items = pair.decoding(steps=steps, stop=0.0), ROWS["reverse"].items(limit, seed)
    measured = dynamics_kept(out / f"{NAME}.jsonl") if out else measure_dynamics
    seen = measured(pair, items, collaboration, decoding, seed=seed, on_progress=on_progress)
    if out:
        typer.echo(f"report in {write_dynamics_report(out, seen, limit, seed, typed_command())}", err=True)
    return seen
