"""The command line for models: train, convert, evaluate, inspect. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.demo.paths import CORE, USER
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.evaluation.two_source import Pair
    from ssd2.params import DecodingParams

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


@app.command(epilog="Example: ssd2 export runs/core_autoregressive --to models/core-opt")
def export(
    folder: Annotated[Path, typer.Argument(help="SSD-2 checkpoint, trained with the causal objective.")],
    to: Annotated[Path, typer.Option(help="Folder for the OPT model.")],
) -> None:
    """Write the causal language model of an SSD-2 checkpoint as an OPT model, the paper's autoregressive baseline."""
    from ssd2.checkpoint import TOKENIZER, load_checkpoint
    from ssd2.convert import export_opt
    from ssd2.errors import CheckpointInvalid
    from ssd2.models.ssd2 import SSD2

    model = load_checkpoint(folder).model
    if not isinstance(model, SSD2):
        raise CheckpointInvalid(f"the model in {folder} is not an SSD-2 checkpoint")
    export_opt(model, to, (folder / TOKENIZER).read_text(encoding="utf-8"))
    typer.echo(f"wrote {to}")


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


_Core = Annotated[Path, typer.Option(help="Checkpoint folder of θ_core.")]
_User = Annotated[Path, typer.Option(help="Checkpoint folder of θ_user.")]
_Limit = Annotated[int, typer.Option(help="Items of each kind.", min=1)]
_Lambda = Annotated[float, typer.Option(help="Weight of the user model, 0 to 1.")]
_Alpha = Annotated[float, typer.Option(help="Contrastive strength.")]
_Steps = Annotated[
    int | None,
    typer.Option(help="Timesteps a block is decoded with; default: 25, or 1 if autoregressive.", show_default=False),
]
_Projection = Annotated[str, typer.Option(help="greedy, sampling or multi-hot.")]
_TopP = Annotated[float, typer.Option(help="Nucleus of the sampling and multi-hot projections.")]
_SelfConditioning = Annotated[str, typer.Option(help="own, projection or mixed.")]
_Seed = Annotated[int, typer.Option(help="Of the items and of the decodes.", min=0)]
_Out = Annotated[
    Path | None,
    typer.Option(help="Folder for results and report; results found there are not computed again."),
]


@evaluate.command(
    "two-source",
    epilog="Examples: ssd2 evaluate two-source --limit 200 --json; ssd2 evaluate two-source --sweep --out reports",
)
def two_source(
    core: _Core = CORE,
    user: _User = USER,
    limit: _Limit = 200,
    lambda_user: _Lambda = 0.3,
    alpha: _Alpha = 1.0,
    steps: _Steps = None,
    projection: _Projection = "sampling",
    top_p: _TopP = 0.2,
    self_conditioning: _SelfConditioning = "own",
    seed: _Seed = 0,
    sweep: Annotated[bool, typer.Option("--sweep", help="λ of the paper's Table 1, with α 0 and 1.")] = False,
    out: _Out = None,
    as_json: _AsJson = False,
) -> None:
    """Ask the demo town's two-source questions: both models together, and each alone."""
    decoding = {"steps": steps, "projection": projection, "top_p": top_p, "self_conditioning": self_conditioning}
    if sweep:
        _compare("two-source", core, user, limit, seed, out, as_json, lambda_user, alpha, **decoding)
        return
    from tqdm import tqdm

    from ssd2.evaluation import two_source as benchmark
    from ssd2.params import CollaborationParams

    if out is not None:
        raise InvalidParameter("--out is for --sweep, which writes a report")
    pair = _load_pair(core, user)
    answers = limit * len(benchmark.SYSTEMS) * len(benchmark.EVALUATED_KINDS)
    with tqdm(total=answers, unit="answer") as bar:
        report = benchmark.evaluate_two_source(
            pair,
            CollaborationParams(lambda_user, alpha),
            _decoding(pair, **decoding),
            limit=limit,
            seed=seed,
            on_progress=bar.update,
        )
    typer.echo(json.dumps(report) if as_json else benchmark.as_table(report))


def _add_comparison(name: str, summary: str) -> None:
    """Make `ssd2 evaluate NAME` of one of the experiments."""

    @evaluate.command(name, help=summary, epilog=f"Example: ssd2 evaluate {name} --limit 500 --out reports")
    def command(
        core: _Core = CORE,
        user: _User = USER,
        limit: _Limit = 200,
        lambda_user: _Lambda = 0.3,
        alpha: _Alpha = 1.0,
        seed: _Seed = 0,
        out: _Out = None,
        as_json: _AsJson = False,
    ) -> None:
        _compare(name, core, user, limit, seed, out, as_json, lambda_user, alpha)


_add_comparison(
    "self-conditioning",
    "What each model is fed back: the mix (the paper's, in one process only), its own logits, the projection.",
)
_add_comparison("steps", "How few timesteps are enough, from 1000 to 10, and what the early stop at 0.4T costs.")
_add_comparison("projections", "Greedy, sampling and multi-hot projections, with narrow and wide nuclei.")


@evaluate.command("dynamics", epilog="Example: ssd2 evaluate dynamics --limit 100 --out reports")
def dynamics(
    core: _Core = CORE,
    user: _User = USER,
    limit: Annotated[int, typer.Option(help="Two-source questions to watch.", min=1)] = 50,
    lambda_user: _Lambda = 0.3,
    alpha: _Alpha = 1.0,
    steps: Annotated[int, typer.Option(help="Timesteps a block, from T down to 0.", min=2)] = 200,
    seed: _Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    as_json: _AsJson = False,
) -> None:
    """When tokens change: how often in each fifth of the timesteps (§3.1)."""
    from tqdm import tqdm

    from ssd2.demo.generator import unseen_items
    from ssd2.evaluation.dynamics import measure_dynamics
    from ssd2.evaluation.report import dynamics_table, write_dynamics_report
    from ssd2.params import CollaborationParams

    pair = _load_pair(core, user)
    with tqdm(total=limit, unit="answer") as bar:
        seen = measure_dynamics(
            pair,
            unseen_items("two-source", limit, seed),
            CollaborationParams(lambda_user, alpha),
            _decoding(pair, steps=steps, stop=0.0),
            seed=seed,
            on_progress=bar.update,
        )
    if out:
        typer.echo(f"report in {write_dynamics_report(out, seen, limit, seed, _command())}", err=True)
    typer.echo(json.dumps(seen.as_json()) if as_json else dynamics_table(seen))


def _command() -> str:
    """What was typed, for a report."""
    return " ".join(["ssd2", *(shlex.quote(argument) for argument in sys.argv[1:])])


def _compare(
    name: str,
    core: Path,
    user: Path,
    limit: int,
    seed: int,
    out: Path | None,
    as_json: bool,
    lambda_user: float,
    alpha: float,
    **decoding: Any,
) -> None:
    """Run one of the experiments, print its results and, with --out, write its report."""
    from tqdm import tqdm

    from ssd2.evaluation.experiments import EXPERIMENTS
    from ssd2.evaluation.report import as_table, write_report
    from ssd2.evaluation.runner import run_experiment
    from ssd2.evaluation.two_source import EVALUATED_KINDS
    from ssd2.params import CollaborationParams

    pair = _load_pair(core, user)
    experiment = EXPERIMENTS[name](CollaborationParams(lambda_user, alpha), _decoding(pair, **decoding))
    with tqdm(total=limit * len(experiment.settings) * len(EVALUATED_KINDS), unit="answer") as bar:

        def show(label: str, answers: int) -> None:
            bar.set_description(label, refresh=False)
            bar.update(answers)

        results = run_experiment(
            pair,
            experiment,
            limit=limit,
            seed=seed,
            results_file=out / f"{name}.jsonl" if out else None,
            on_progress=show,
        )
    if out:
        typer.echo(f"report in {write_report(out, experiment, results, _command())}", err=True)
    typer.echo(json.dumps({"results": [result.as_json() for result in results]}) if as_json else as_table(results))


def _load_pair(core: Path, user: Path) -> Pair:
    from ssd2.checkpoint import load_checkpoint
    from ssd2.evaluation.two_source import Pair

    return Pair(load_checkpoint(core), load_checkpoint(user))


def _decoding(pair: Pair, **values: Any) -> DecodingParams:
    from ssd2.params import DecodingParams

    config = pair.core.model.config
    if values.get("steps") is None:
        values["steps"] = config.default_steps
    return DecodingParams(block_size=config.block_size, simplex_value=config.simplex_value, **values)
