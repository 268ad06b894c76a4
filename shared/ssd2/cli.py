"""The command line for models: train, convert, evaluate, inspect. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ssd2.demo.paths import CORE, USER

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Make and measure SSD-2 models."
)
evaluate = typer.Typer(no_args_is_help=True, help="Measure a pair of models.")
app.add_typer(evaluate, name="evaluate")

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command(epilog="Example: ssd2 train --recipe shared/ssd2/demo/recipes/core.toml --out runs/core")
def train(
    recipe: Annotated[Path, typer.Option(help="TOML file; see shared/ssd2/demo/recipes.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints; a run found there goes on where it stopped.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores.", min=1)] = None,
    start: Annotated[Path | None, typer.Option(help="Checkpoint folder to take the first weights from.")] = None,
) -> None:
    """Train a model with Algorithm 1, or as the causal language model before it; resumable at any time."""
    import torch

    from ssd2.training.recipe import read_recipe
    from ssd2.training.trainer import Trainer

    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(read_recipe(recipe), out, device)
    if trainer.resume():
        typer.echo(f"going on at step {trainer.step} of {trainer.params.steps}", err=True)
        if trainer.step == trainer.params.steps:
            typer.echo(f"already trained; checkpoint in {out}")
            return
    elif start:
        trainer.start_from(start)
    loss = trainer.train()
    typer.echo(f"trained {trainer.params.steps} steps, loss {loss:.4f}; checkpoint in {out}")


@app.command(epilog="Example: ssd2 convert --from facebook/opt-125m --to models/ssd2-0.1b")
def convert(
    source: Annotated[str, typer.Option("--from", help="OPT on the hub, or a folder with its files.")],
    to: Annotated[Path, typer.Option(help="Folder for the SSD-2 checkpoint.")],
    block_size: Annotated[int, typer.Option(help="L to train with; the paper's is 25.")] = 25,
    context_timestep: Annotated[str, typer.Option(help="quantised (the paper's) or none.")] = "quantised",
) -> None:
    """Initialise an SSD-2 model from OPT's weights, to be trained from there (§4)."""
    from ssd2.convert import convert_opt

    convert_opt(source, to, block_size=block_size, context_timestep=context_timestep)
    typer.echo(f"wrote {to}; its diffusion inputs are new, so train it before use")


@app.command(epilog="Example: ssd2 inspect shared/ssd2/demo/core")
def inspect(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    as_json: _AsJson = False,
) -> None:
    """Show what a checkpoint is: shape, parameters, fingerprints."""
    from ssd2.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    facts = {
        **asdict(checkpoint.model.config),
        "parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        "model_sha256": checkpoint.sha256,
        "tokenizer_sha256": checkpoint.tokenizer.sha256,
    }
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name:20} {value}" for name, value in facts.items()))


@evaluate.command("two-source", epilog="Example: ssd2 evaluate two-source --limit 200 --json")
def two_source(
    core: Annotated[Path, typer.Option(help="Checkpoint folder of θ_core.")] = CORE,
    user: Annotated[Path, typer.Option(help="Checkpoint folder of θ_user.")] = USER,
    limit: Annotated[int, typer.Option(help="Items of each kind.", min=1)] = 200,
    lambda_user: Annotated[float, typer.Option(help="Weight of the user model, 0 to 1.")] = 0.3,
    alpha: Annotated[float, typer.Option(help="Contrastive strength.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Diffusion timesteps a block is decoded with.")] = 25,
    projection: Annotated[str, typer.Option(help="greedy, sampling or multi-hot.")] = "sampling",
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling and multi-hot projections.")] = 0.2,
    self_conditioning: Annotated[str, typer.Option(help="own, projection or mixed.")] = "own",
    seed: Annotated[int, typer.Option(help="Of the items and of the decodes.", min=0)] = 0,
    as_json: _AsJson = False,
) -> None:
    """Ask the demo town's two-source questions: both models together, and each alone."""
    from tqdm import tqdm

    from ssd2.checkpoint import load_checkpoint
    from ssd2.evaluation import two_source as benchmark
    from ssd2.params import CollaborationParams, DecodingParams

    pair = benchmark.Pair(load_checkpoint(core), load_checkpoint(user))
    params = DecodingParams(
        block_size=pair.core.model.config.block_size,
        steps=steps,
        projection=projection,
        top_p=top_p,
        self_conditioning=self_conditioning,
        simplex_value=pair.core.model.config.simplex_value,
    )
    answers = limit * len(benchmark.SYSTEMS) * len(benchmark.EVALUATED_KINDS)
    with tqdm(total=answers, unit="answer") as bar:
        report = benchmark.evaluate_two_source(
            pair, CollaborationParams(lambda_user, alpha), params, limit=limit, seed=seed, on_progress=bar.update
        )
    typer.echo(json.dumps(report) if as_json else benchmark.as_table(report))
