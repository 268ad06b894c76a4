"""`ssd2 lab claim`: training and measurement of the order-free relation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ssd2.cli.help import ADVANCED, App, examples
from ssd2.cli.options import AsJson, Out, Seed, typed_command

app = App(help="The paper's claim on a small text: two values in one block, in an order that is drawn.")

TrainingSeed = Annotated[int, typer.Option(help="Seed of weights, text and noise.", min=0)]
Folder = Annotated[Path, typer.Option(help="Folder for the models; what is found there is resumed.")]
Experts = Annotated[bool, typer.Option("--experts", help="Train the three experts of §3.1 too.")]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Steps of every run, to try it out.", min=1, show_default="the recipes'", rich_help_panel=ADVANCED
    ),
]
Folders = Annotated[list[Path], typer.Argument(help="Folders of ssd2 lab claim train, one a training seed.")]
ItemLimit = Annotated[int, typer.Option(help="Questions of each order.", min=1)]


@app.command(epilog=examples("ssd2 lab claim train --seed 1 --out runs/claim-1"))
def train(out: Folder, seed: TrainingSeed = 1, experts: Experts = False, steps: Steps = None) -> None:
    """Train both pairs of one training seed: diffusion, its control, and autoregressive.

    Takes less than an hour of one processor. Give the same command again to resume.
    """
    from ssd2.lab.claim_training import train_claim

    train_claim(out, seed, experts=experts, steps=steps, on_stage=lambda stage: typer.echo(stage, err=True))
    typer.echo(f"trained; models in {out}")


@app.command(
    epilog=examples(
        "ssd2 lab claim evaluate runs/claim-1 --limit 300",
        "ssd2 lab claim evaluate runs/claim-1 runs/claim-2 runs/claim-3 --out reports",
    )
)
def evaluate(
    folders: Folders, limit: ItemLimit = 1000, seed: Seed = 0, out: Out = None, as_json: AsJson = False
) -> None:
    """Measure which pair answers in which order, by λ, α, timesteps and training."""
    from tqdm import tqdm

    from ssd2.lab.claim import compare, measure_claim
    from ssd2.lab.claim_report import claim_tables, write_claim_report

    with tqdm(unit="answer") as bar:

        def show(label: str, answers: int) -> None:
            bar.set_description(label)
            bar.update(answers)

        results_file = out / "claim.jsonl" if out else None
        rows = measure_claim(folders, limit=limit, seed=seed, results_file=results_file, on_answers=show)
    if out:
        typer.echo(f"report in {write_claim_report(out, rows, seed, typed_command())}", err=True)
    facts = {"rows": [row.as_json() for row in rows], "partner_against_control": [asdict(c) for c in compare(rows)]}
    typer.echo(json.dumps(facts) if as_json else claim_tables(rows))
