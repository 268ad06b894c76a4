"""`ssd2 train`, `convert`, `export`, `experts` and `inspect`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.algorithm.timesteps import EXPERT_RANGES
from ssd2.cli.help import ADVANCED, App, examples
from ssd2.cli.options import AsJson
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.training.trainer import Trainer

app = App()

MODELS = "Models"
TRAIN_EXAMPLES = examples(
    "ssd2 train --list",
    "ssd2 train --recipe shared/ssd2/demo/recipes/core.toml --out runs/core",
    "ssd2 train --recipe finetune_0.1b --start runs/pretrained --out runs/user --micro-batch-size 8",
    "torchrun --nproc-per-node 8 -m ssd2 train --recipe pretrain_2.7b --start models/opt --out runs/core "
    "--device cuda --sharding fsdp --micro-batch-size 8",
)


def _list_recipes(asked: bool) -> None:
    if asked:
        from ssd2.training.recipe import RECIPES, shipped_recipes

        for name, summary in shipped_recipes().items():
            typer.echo(f"{name:16} {summary}")
        typer.echo(f"in {RECIPES}", err=True)
        raise typer.Exit


RecipeName = Annotated[str, typer.Option(help="Recipe: a TOML file, or the name of a shipped one.")]
RunFolder = Annotated[Path, typer.Option(help="Folder for checkpoints; a run found there is resumed.")]
Start = Annotated[
    Path | None, typer.Option(help="Checkpoint folder to initialise the weights from.", show_default=False)
]
Device = Annotated[str, typer.Option(help="cpu or cuda; each rank of torchrun uses its own GPU.")]
MicroBatchSize = Annotated[
    int | None,
    typer.Option(
        help="Sequences per rank computed at once; fewer need less memory.",
        min=1,
        show_default="the rank's share of the batch",
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write metrics for TensorBoard to OUT.")]
ListRecipes = Annotated[
    bool, typer.Option("--list", callback=_list_recipes, is_eager=True, help="List the shipped recipes and exit.")
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads.", min=1, show_default="all cores", rich_help_panel=ADVANCED)
]
Expert = Annotated[
    str | None,
    typer.Option(
        help="Train only for one range of timesteps: 0.4-0.6, 0.6-0.8 or 0.8-1.0.",
        show_default=False,
        rich_help_panel=ADVANCED,
    ),
]
Sharding = Annotated[
    str,
    typer.Option(
        help="Parallelism over ranks: ddp (each holds the whole model) or fsdp (each holds a share).",
        rich_help_panel=ADVANCED,
    ),
]
ActivationCheckpointing = Annotated[
    bool,
    typer.Option(
        "--activation-checkpointing",
        help="Recompute activations in the backward pass: less memory, more time.",
        rich_help_panel=ADVANCED,
    ),
]


@app.command(epilog=TRAIN_EXAMPLES, rich_help_panel=MODELS)
def train(
    recipe: RecipeName,
    out: RunFolder,
    start: Start = None,
    device: Device = "cpu",
    micro_batch_size: MicroBatchSize = None,
    tensorboard: TensorBoard = False,
    list_recipes: ListRecipes = False,
    threads: Threads = None,
    expert: Expert = None,
    sharding: Sharding = "ddp",
    activation_checkpointing: ActivationCheckpointing = False,
) -> None:
    """Train a diffusion model (Algorithm 1), or the causal language model it starts from; resumes if interrupted."""
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
    """Train to the end, resuming a run found in its folder; only the rank with `say` prints."""
    if trainer.resume():
        if say:
            typer.echo(f"resuming at step {trainer.step} of {trainer.params.steps}", err=True)
        if trainer.is_finished:
            if say:
                typer.echo(f"already trained; checkpoint in {trainer.out}")
            return
    elif start:
        trainer.start_from(start)
    loss = trainer.train(show_progress=say, tensorboard=tensorboard)
    if say:
        if trainer.left_out:
            typer.echo(f"{trainer.left_out} examples were too long and were left out", err=True)
        # No step was left to do, only the checkpoint to write: there is no loss.
        average = "" if math.isnan(loss) else f", loss {loss:.4f}"
        typer.echo(f"trained {trainer.params.steps} steps{average}; checkpoint in {trainer.out}")


@app.command(epilog=examples("ssd2 convert --from facebook/opt-125m --to models/ssd2-0.1b"), rich_help_panel=MODELS)
def convert(
    source: Annotated[str, typer.Option("--from", help="OPT model: its name on the hub, or a folder with its files.")],
    to: Annotated[Path, typer.Option(help="Folder for the new checkpoint.")],
    block_size: Annotated[int, typer.Option(help="Block length (L) to train with; the paper uses 25.")] = 25,
    context_timestep: Annotated[
        str,
        typer.Option(
            help="Timestep embedding of the context: none, or quantised as in the paper. With quantised a core "
            "re-encodes the context every 50 timesteps, which makes long prompts slow."
        ),
    ] = "none",
) -> None:
    """Initialise an SSD-2 model from OPT weights, to be trained next (§4)."""
    from ssd2.models.convert import convert_opt

    convert_opt(source, to, block_size=block_size, context_timestep=context_timestep)
    typer.echo(f"wrote {to}; train it before use: its diffusion inputs are untrained")


@app.command(epilog=examples("ssd2 export runs/core_autoregressive --to models/core-opt"), rich_help_panel=MODELS)
def export(
    folder: Annotated[Path, typer.Argument(help="SSD-2 checkpoint trained with the causal objective.")],
    to: Annotated[Path, typer.Option(help="Folder for the OPT model.")],
) -> None:
    """Export the causal language model of an SSD-2 checkpoint as an OPT model."""
    from ssd2.models.ssd2_family import export_checkpoint

    export_checkpoint(folder, to)
    typer.echo(f"wrote {to}")


@app.command(
    epilog=examples("ssd2 experts runs/low runs/middle runs/high --to models/core-experts"), rich_help_panel=MODELS
)
def experts(
    folders: Annotated[list[Path], typer.Argument(help="Checkpoints to join, lowest range of timesteps first.")],
    to: Annotated[Path, typer.Option(help="Folder for the joined checkpoint.")],
    borders: Annotated[
        str | None,
        typer.Option(
            help="Shares of T at which the ranges begin, the lowest first.",
            show_default=",".join(str(above) for above, _ in EXPERT_RANGES),
            rich_help_panel=ADVANCED,
        ),
    ] = None,
) -> None:
    """Join models finetuned for ranges of timesteps into one checkpoint, the experts of §3.1."""
    from ssd2.models.ssd2_family import join_experts

    try:
        shares = [float(border) for border in borders.split(",")] if borders else [above for above, _ in EXPERT_RANGES]
    except ValueError:
        raise InvalidParameter(f"borders is {borders!r}; give shares of T such as 0.4,0.6,0.8") from None
    join_experts(folders, shares, to)
    typer.echo(f"wrote {to}")


@app.command(epilog=examples("ssd2 inspect shared/ssd2/demo/core"), rich_help_panel=MODELS)
def inspect(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    as_json: AsJson = False,
) -> None:
    """Show a checkpoint's configuration, parameter count and fingerprints."""
    from ssd2.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    facts = {
        **asdict(checkpoint.model.config),
        "parameters": checkpoint.parameters,
        "model_sha256": checkpoint.sha256,
        "tokenizer_sha256": checkpoint.tokenizer.sha256,
    }
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name:20} {value}" for name, value in facts.items()))
