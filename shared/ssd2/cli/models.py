"""Making models: train, convert, export, inspect."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.options import AsJson
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.training.trainer import Trainer

app = typer.Typer()

EXAMPLES = (
    "Examples: ssd2 train --recipe shared/ssd2/demo/recipes/core.toml --out runs/core; "
    "ssd2 train --recipe finetune_0.1b --start runs/pretrained --out runs/user --micro-batch-size 8; "
    "torchrun --nproc-per-node 8 -m ssd2 train --recipe pretrain_2.7b --start models/opt --out runs/core "
    "--device cuda --sharding fsdp --micro-batch-size 8"
)


def _list_recipes(asked: bool) -> None:
    if asked:
        from ssd2.training.recipe import RECIPES, shipped_recipes

        for name, summary in shipped_recipes().items():
            typer.echo(f"{name:16} {summary}")
        typer.echo(f"in {RECIPES}", err=True)
        raise typer.Exit


@app.command(epilog=EXAMPLES)
def train(
    recipe: Annotated[str, typer.Option(help="TOML file, or the name of a shipped recipe.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints; a run found there goes on where it stopped.")],
    device: Annotated[str, typer.Option(help="cpu or cuda; a rank of torchrun takes the GPU of its number.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores.", min=1)] = None,
    start: Annotated[Path | None, typer.Option(help="Checkpoint folder to take the first weights from.")] = None,
    expert: Annotated[str | None, typer.Option(help="One range of timesteps: 0.4-0.6, 0.6-0.8 or 0.8-1.0.")] = None,
    sharding: Annotated[str, typer.Option(help="ddp: each rank holds the model; fsdp: a share of it.")] = "ddp",
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Sequences a rank computes at once; default: its share of the batch.", min=1)
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Less memory for more computing.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Metrics for TensorBoard in OUT.")] = False,
    list_recipes: Annotated[
        bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="List the shipped recipes.")
    ] = False,
) -> None:
    """Train a model with Algorithm 1, or as the causal language model before it; resumable at any time."""
    import torch

    from ssd2.training.parallel import joined_ranks
    from ssd2.training.recipe import find_recipe, read_recipe
    from ssd2.training.trainer import Trainer

    if threads is not None:
        torch.set_num_threads(threads)
    plan = read_recipe(find_recipe(recipe))
    if expert is not None:
        plan = replace(plan, training=plan.training.of_expert(expert))
    with joined_ranks(device) as ranks:
        execution = replace(
            ranks,
            sharding=sharding,
            micro_batch_size=micro_batch_size,
            activation_checkpointing=activation_checkpointing,
        )
        _run(Trainer(plan, out, execution, start=start), start, tensorboard, say=execution.is_first)


def _run(trainer: Trainer, start: Path | None, tensorboard: bool, *, say: bool) -> None:
    """Train to the end, from where the run has come to; the rank that does not say anything helps."""
    if trainer.resume():
        if say:
            typer.echo(f"going on at step {trainer.step} of {trainer.params.steps}", err=True)
        if trainer.is_finished:
            if say:
                typer.echo(f"already trained; checkpoint in {trainer.out}")
            return
    elif start:
        trainer.start_from(start)
    loss = trainer.train(show_progress=say, tensorboard=tensorboard)
    if say:
        if trainer.left_out:
            typer.echo(f"{trainer.left_out} examples were too long and left out", err=True)
        # No step was left to do, only the checkpoint to write: there is no loss.
        average = "" if math.isnan(loss) else f", loss {loss:.4f}"
        typer.echo(f"trained {trainer.params.steps} steps{average}; checkpoint in {trainer.out}")


@app.command(epilog="Example: ssd2 convert --from facebook/opt-125m --to models/ssd2-0.1b")
def convert(
    source: Annotated[str, typer.Option("--from", help="OPT on the hub, or a folder with its files.")],
    to: Annotated[Path, typer.Option(help="Folder for the SSD-2 checkpoint.")],
    block_size: Annotated[int, typer.Option(help="L to train with; the paper's is 25.")] = 25,
    context_timestep: Annotated[
        str,
        typer.Option(
            help="none, or quantised: the paper's Emb_ctx-time, for which a server encodes each context anew every 50 "
            "timesteps, and long prompts slow every answer down."
        ),
    ] = "none",
) -> None:
    """Initialise an SSD-2 model from OPT's weights, to be trained from there (§4)."""
    from ssd2.models.convert import convert_opt

    convert_opt(source, to, block_size=block_size, context_timestep=context_timestep)
    typer.echo(f"wrote {to}; its diffusion inputs are new, so train it before use")


@app.command(epilog="Example: ssd2 export runs/core_autoregressive --to models/core-opt")
def export(
    folder: Annotated[Path, typer.Argument(help="SSD-2 checkpoint, trained with the causal objective.")],
    to: Annotated[Path, typer.Option(help="Folder for the OPT model.")],
) -> None:
    """Write the causal language model of an SSD-2 checkpoint as an OPT model, the paper's autoregressive baseline."""
    from ssd2.models.checkpoint import load_checkpoint
    from ssd2.models.convert import export_opt
    from ssd2.models.ssd2_family import single_network
    from ssd2.models.tokenizer import TOKENIZER

    model = single_network(load_checkpoint(folder).model, folder)
    export_opt(model, to, (folder / TOKENIZER).read_text(encoding="utf-8"))
    typer.echo(f"wrote {to}")


@app.command(epilog="Example: ssd2 experts runs/low runs/middle runs/high --to models/core-experts")
def experts(
    folders: Annotated[list[Path], typer.Argument(help="Checkpoints, for the lowest range of timesteps first.")],
    to: Annotated[Path, typer.Option(help="Folder for the experts' checkpoint.")],
    borders: Annotated[
        str | None,
        typer.Option(help="Shares of T where the ranges begin, the lowest first; default: the paper's 0.4,0.6,0.8."),
    ] = None,
) -> None:
    """Join models that were finetuned for ranges of timesteps, as the three experts of §3.1."""
    from ssd2.algorithm.timesteps import EXPERT_RANGES
    from ssd2.models.ssd2_family import join_experts

    try:
        shares = [float(border) for border in borders.split(",")] if borders else [above for above, _ in EXPERT_RANGES]
    except ValueError:
        raise InvalidParameter(f"borders is {borders!r}; give shares of T such as 0.4,0.6,0.8") from None
    join_experts(folders, shares, to)
    typer.echo(f"wrote {to}")


@app.command(epilog="Example: ssd2 inspect shared/ssd2/demo/core")
def inspect(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a checkpoint is: shape, parameters, fingerprints."""
    from ssd2.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    facts = {
        **asdict(checkpoint.model.config),
        "parameters": checkpoint.parameters,
        "model_sha256": checkpoint.sha256,
        "tokenizer_sha256": checkpoint.tokenizer.sha256,
    }
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name:20} {value}" for name, value in facts.items()))
