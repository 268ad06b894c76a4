"""Measuring models: `ssd2 evaluate …`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli import evaluate_judge, evaluate_text
from ssd2.cli.options import (
    Alpha,
    AsJson,
    Core,
    CoreEvery,
    EntropyBound,
    Lambda,
    Limit,
    Logits,
    Out,
    Patience,
    Projection,
    Schedule,
    Seed,
    SelfConditioning,
    Steps,
    TopP,
    User,
    typed_command,
)
from ssd2.demo.paths import CORE, USER
from ssd2.errors import InvalidParameter
from ssd2.logits.format import FLOAT16, LogitsFormat

if TYPE_CHECKING:
    from ssd2.algorithm.params import DecodingParams
    from ssd2.evaluation.two_source import Pair

app = typer.Typer(no_args_is_help=True, help="Measure a pair of models, or texts.")
app.command("text", epilog=evaluate_text.EPILOG)(evaluate_text.text)
app.command("judge", epilog=evaluate_judge.EPILOG)(evaluate_judge.judge)


@app.command(
    "two-source",
    epilog="Examples: ssd2 evaluate two-source --limit 200 --json; ssd2 evaluate two-source --sweep --out reports",
)
def two_source(
    core: Core = CORE,
    user: User = USER,
    limit: Limit = 200,
    lambda_user: Lambda = 0.3,
    alpha: Alpha = 1.0,
    steps: Steps = None,
    patience: Patience = 0,
    entropy_bound: EntropyBound = None,
    schedule: Schedule = "even",
    core_every: CoreEvery = 1,
    projection: Projection = "sampling",
    top_p: TopP = 0.2,
    self_conditioning: SelfConditioning = "own",
    logits: Logits = str(FLOAT16),
    seed: Seed = 0,
    sweep: Annotated[bool, typer.Option("--sweep", help="λ of the paper's Table 1, with α 0 and 1.")] = False,
    baseline: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="CORE USER", help="Two more checkpoint folders, to sweep beside: an autoregressive pair."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="File for all answers (.jsonl), to be read by evaluate text and judge.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Ask the demo town's two-source questions: both models together, and each alone."""
    logits_format = LogitsFormat.parse(logits)
    decoding = {
        "steps": steps,
        "patience": patience or None,
        "entropy_bound": entropy_bound,
        "schedule": schedule,
        "core_every": core_every,
        "projection": projection,
        "top_p": top_p,
        "self_conditioning": self_conditioning,
    }
    if sweep:
        if answers is not None or logits_format != FLOAT16:
            raise InvalidParameter("--answers and --logits are for one setting; leave --sweep out")
        pairs = [(core, user), *([baseline] if baseline else [])]
        _compare("two-source", pairs, limit, seed, out, as_json, lambda_user, alpha, **decoding)
        return
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation import two_source as benchmark
    from ssd2.evaluation.generations import AnswersFile

    if out is not None or baseline is not None:
        raise InvalidParameter("--out and --baseline are for --sweep, which writes a report")
    keep = AnswersFile(answers).add if answers else lambda *_: None
    pair = _load_pair(core, user)
    total = limit * len(benchmark.SYSTEMS) * len(benchmark.EVALUATED_KINDS)
    with tqdm(total=total, unit="answer") as bar:
        report = benchmark.evaluate_two_source(
            pair,
            CollaborationParams(lambda_user, alpha),
            _decoding(pair, **decoding),
            limit=limit,
            seed=seed,
            logits_format=logits_format,
            on_progress=bar.update,
            on_answers=keep,
        )
    typer.echo(json.dumps(report) if as_json else benchmark.as_table(report))


def _add_comparison(name: str, summary: str) -> None:
    """Make `ssd2 evaluate NAME` of one of the experiments."""

    @app.command(name, help=summary, epilog=f"Example: ssd2 evaluate {name} --limit 500 --out reports")
    def command(
        core: Core = CORE,
        user: User = USER,
        limit: Limit = 200,
        lambda_user: Lambda = 0.3,
        alpha: Alpha = 1.0,
        seed: Seed = 0,
        out: Out = None,
        as_json: AsJson = False,
    ) -> None:
        _compare(name, [(core, user)], limit, seed, out, as_json, lambda_user, alpha)


_add_comparison(
    "self-conditioning",
    "What each model is fed back: the mix (the paper's, in one process only), its own logits, the projection.",
)
_add_comparison("steps", "How few timesteps are enough, from 1000 to 10, and what the early stop at 0.4T costs.")
_add_comparison(
    "few-timesteps",
    "Fewer timesteps and fewer questions to the core: blocks that end early, schedules, the core asked now and then.",
)
_add_comparison("projections", "Greedy, sampling and multi-hot projections, with narrow and wide nuclei.")
_add_comparison("formats", "What fewer bytes of the core's logits cost: float16, uint8 and the 64, 16 and 4 largest.")


@app.command("dynamics", epilog="Example: ssd2 evaluate dynamics --limit 100 --out reports")
def dynamics(
    core: Core = CORE,
    user: User = USER,
    limit: Annotated[int, typer.Option(help="Two-source questions to watch.", min=1)] = 50,
    lambda_user: Lambda = 0.3,
    alpha: Alpha = 1.0,
    steps: Annotated[int, typer.Option(help="Timesteps a block, from T down to 0.", min=2)] = 200,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    as_json: AsJson = False,
) -> None:
    """When tokens change: how often in each fifth of the timesteps (§3.1)."""
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.demo.generator import unseen_items
    from ssd2.evaluation.dynamics import measure_dynamics
    from ssd2.evaluation.report import dynamics_table, write_dynamics_report

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
        typer.echo(f"report in {write_dynamics_report(out, seen, limit, seed, typed_command())}", err=True)
    typer.echo(json.dumps(seen.as_json()) if as_json else dynamics_table(seen))


def _compare(
    name: str,
    pairs: Sequence[tuple[Path, Path]],
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

    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.experiments import EXPERIMENTS
    from ssd2.evaluation.report import as_table, write_report
    from ssd2.evaluation.runner import Result, run_experiment

    loaded = [_load_pair(core, user) for core, user in pairs]
    collaboration = CollaborationParams(lambda_user, alpha)
    experiments = [EXPERIMENTS[name](collaboration, _decoding(pair, **decoding)) for pair in loaded]
    answers = sum(limit * len(experiment.settings) * len(experiment.kinds) for experiment in experiments)
    total, results = sum(len(experiment.settings) for experiment in experiments), list[Result]()
    with tqdm(total=answers, unit="answer") as bar:

        def show(label: str, answers: int) -> None:
            bar.set_description(label, refresh=False)
            bar.update(answers)

        def keep(result: Result) -> None:
            """A report of what there is, so that a run that is stopped has one too."""
            results.append(result)
            if out:
                write_report(out, experiments[0], results, total, typed_command())

        for pair, experiment in zip(loaded, experiments, strict=True):
            run_experiment(
                pair,
                experiment,
                limit=limit,
                seed=seed,
                results_file=out / f"{name}.jsonl" if out else None,
                on_progress=show,
                on_result=keep,
            )
    if out:
        typer.echo(f"report in {out / f'{name}.md'}", err=True)
    typer.echo(json.dumps({"results": [result.as_json() for result in results]}) if as_json else as_table(results))


def _load_pair(core: Path, user: Path) -> Pair:
    from ssd2.evaluation.two_source import Pair
    from ssd2.models.checkpoint import load_checkpoint

    return Pair(load_checkpoint(core), load_checkpoint(user))


def _decoding(pair: Pair, **values: Any) -> DecodingParams:
    from ssd2.algorithm.params import DecodingParams

    return DecodingParams.for_model(pair.core.model.config, **values)
