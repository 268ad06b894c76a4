"""`ssd2 evaluate`: accuracy of a pair of models, and comparisons of its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli.documents import EXAMPLES as DOCUMENTS_EXAMPLES
from ssd2.cli.documents import documents
from ssd2.cli.help import ADVANCED, App, examples
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
    from ssd2.algorithm.params import CollaborationParams, DecodingParams, LambdaUser
    from ssd2.evaluation.two_source import Pair

app = App(help="Measure a pair of models on questions about the demo's town, or about everyday documents.")
app.command("documents", epilog=DOCUMENTS_EXAMPLES)(documents)


@app.command(
    "two-source",
    epilog=examples("ssd2 evaluate two-source --limit 60", "ssd2 evaluate two-source --sweep --out reports"),
)
def two_source(
    limit: Limit = 200,
    core: Core = CORE,
    user: User = USER,
    lambda_user: Lambda = 0.3,
    alpha: Alpha = 1.0,
    steps: Steps = None,
    seed: Seed = 0,
    sweep: Annotated[bool, typer.Option("--sweep", help="Sweep λ as in the paper's Table 1, with α 0 and 1.")] = False,
    out: Out = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="File for all answers (.jsonl), as ssd2 lab text and judge read it.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    baseline: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="CORE USER", help="Second pair to sweep, for comparison.", rich_help_panel=ADVANCED),
    ] = None,
    patience: Patience = 0,
    entropy_bound: EntropyBound = None,
    schedule: Schedule = "even",
    core_every: CoreEvery = 1,
    projection: Projection = "sampling",
    top_p: TopP = 0.2,
    self_conditioning: SelfConditioning = "own",
    logits: Logits = str(FLOAT16),
) -> None:
    """Ask questions that neither model can answer alone: of both models together, and of each alone."""
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
    if not sweep:
        if out is not None or baseline is not None:
            raise InvalidParameter(
                "--out and --baseline need --sweep, which writes a report; add it, or leave them out"
            )
        _measure((core, user), lambda_user, alpha, decoding, limit, seed, logits_format, answers, as_json)
    elif answers is not None or logits_format != FLOAT16:
        raise InvalidParameter("--answers and --logits apply to one setting; leave out --sweep")
    else:
        pairs = [(core, user), *([baseline] if baseline else [])]
        _compare("two-source", pairs, lambda_user, alpha, decoding, limit, seed, out, as_json)


def _add_comparison(name: str, summary: str) -> None:
    """Add `ssd2 evaluate NAME` for one of the experiments."""

    @app.command(
        name,
        help=summary,
        epilog=examples(f"ssd2 evaluate {name} --limit 500 --out reports"),
        rich_help_panel="Comparisons of settings",
    )
    def command(
        limit: Limit = 200,
        core: Core = CORE,
        user: User = USER,
        lambda_user: Lambda = 0.3,
        alpha: Alpha = 1.0,
        seed: Seed = 0,
        out: Out = None,
        as_json: AsJson = False,
    ) -> None:
        _compare(name, [(core, user)], lambda_user, alpha, {}, limit, seed, out, as_json)


_add_comparison("self-conditioning", "Compare the predictions that are fed back: mixed, own and projection.")
_add_comparison("steps", "Compare 1000 to 10 timesteps per block, and the early stop at 0.4T.")
_add_comparison(
    "few-timesteps", "Compare ways to save timesteps: early block ends, schedules, reused logits of the core."
)
_add_comparison("projections", "Compare greedy, sampling and multi-hot projections, with narrow and wide nuclei.")
_add_comparison("formats", "Compare formats of the core's logits: float16, uint8 and the 64, 16 and 4 largest.")


def _measure(
    folders: tuple[Path, Path],
    lambda_user: LambdaUser,
    alpha: float,
    decoding: dict[str, Any],
    limit: int,
    seed: int,
    logits_format: LogitsFormat,
    answers: Path | None,
    as_json: bool,
) -> None:
    """Run the benchmark in one setting and print its results."""
    from tqdm import tqdm

    from ssd2.evaluation import two_source as benchmark
    from ssd2.evaluation.generations import AnswersFile

    keep = AnswersFile(answers).add if answers else lambda *_: None
    pair, collaboration, params = _loaded(folders, lambda_user, alpha, decoding)
    total = limit * len(benchmark.SYSTEMS) * len(benchmark.EVALUATED_KINDS)
    with tqdm(total=total, unit="answer") as bar:
        report = benchmark.evaluate_two_source(
            pair,
            collaboration,
            params,
            limit=limit,
            seed=seed,
            logits_format=logits_format,
            on_progress=bar.update,
            on_answers=keep,
        )
    typer.echo(json.dumps(report) if as_json else benchmark.as_table(report))


def _compare(
    name: str,
    pairs: Sequence[tuple[Path, Path]],
    lambda_user: LambdaUser,
    alpha: float,
    decoding: dict[str, Any],
    limit: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run one of the experiments, print its results and, with --out, write its report."""
    from tqdm import tqdm

    from ssd2.evaluation.experiments import EXPERIMENTS
    from ssd2.evaluation.report import as_table, write_report
    from ssd2.evaluation.runner import Result, run_experiment

    loaded = [_loaded(pair, lambda_user, alpha, decoding) for pair in pairs]
    planned = [(pair, EXPERIMENTS[name](collaboration, params)) for pair, collaboration, params in loaded]
    answers = sum(limit * len(experiment.settings) * len(experiment.kinds) for _, experiment in planned)
    total, results = sum(len(experiment.settings) for _, experiment in planned), list[Result]()
    with tqdm(total=answers, unit="answer") as bar:

        def show(label: str, answers: int) -> None:
            bar.set_description(label, refresh=False)
            bar.update(answers)

        def keep(result: Result) -> None:
            """Write a report of the results so far: a run that is stopped has one too."""
            results.append(result)
            if out:
                write_report(out, planned[0][1], results, total, typed_command())

        for pair, experiment in planned:
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


def _loaded(
    folders: tuple[Path, Path], lambda_user: LambdaUser, alpha: float, decoding: dict[str, Any]
) -> tuple[Pair, CollaborationParams, DecodingParams]:
    """Load a pair, and check the settings that it is measured with."""
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.two_source import Pair

    pair = Pair.load(*folders)
    return pair, CollaborationParams(lambda_user, alpha), pair.decoding(**decoding)
