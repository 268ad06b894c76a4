"""`ssd2 lab dynamics`: when in a decode tokens change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssd2.cli.help import examples
from ssd2.cli.options import Alpha, AsJson, Core, Lambda, Seed, User, typed_command
from ssd2.demo.paths import CORE, USER

EXAMPLES = examples("ssd2 lab dynamics --limit 100 --out reports")


def dynamics(
    limit: Annotated[int, typer.Option(help="Two-source questions to watch.", min=1)] = 50,
    core: Core = CORE,
    user: User = USER,
    lambda_user: Lambda = 0.3,
    alpha: Alpha = 1.0,
    steps: Annotated[int, typer.Option(help="Timesteps per block, from T down to 0.", min=2)] = 200,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Count how often tokens change in each fifth of the timesteps (§3.1)."""
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.demo.generator import unseen_items
    from ssd2.evaluation.two_source import Pair
    from ssd2.lab.dynamics import measure_dynamics
    from ssd2.lab.dynamics_report import dynamics_table, write_dynamics_report

    pair = Pair.load(core, user)
    with tqdm(total=limit, unit="answer") as bar:
        seen = measure_dynamics(
            pair,
            unseen_items("two-source", limit, seed),
            CollaborationParams(lambda_user, alpha),
            pair.decoding(steps=steps, stop=0.0),
            seed=seed,
            on_progress=bar.update,
        )
    if out:
        typer.echo(f"report in {write_dynamics_report(out, seen, limit, seed, typed_command())}", err=True)
    typer.echo(json.dumps(seen.as_json()) if as_json else dynamics_table(seen))
