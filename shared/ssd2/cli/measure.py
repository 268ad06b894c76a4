"""`ssd2 measure`: decoding settings of a checkpoint, measured and written into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssd2.cli.help import ADVANCED, App, examples
from ssd2.cli.options import DEFAULT_LAMBDA, Alpha, AsJson, Lambda, Limit, Seed, typed_command
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.evaluation.grid import Grid
    from ssd2.evaluation.measuring import Measurement, Measuring

app = App()

RESULTS = "measured.jsonl"
"""Results of a run that is not done, by the settings they belong to."""

EXAMPLES = examples(
    "ssd2 measure runs/core --user runs/user",
    "ssd2 measure runs/core --user runs/user --limit 50 --steps 8,25 --dry-run",
    "ssd2 measure runs/core --user runs/user --tolerance 0.02 --out runs/measured --json",
)

_T = TypeVar("_T", int, float)

Core = Annotated[Path, typer.Argument(help="Checkpoint folder of the core model, which is changed.")]
User = Annotated[Path, typer.Option(help="Checkpoint folder of the user model that it is measured with.")]
Tolerance = Annotated[
    float, typer.Option(help="Accuracy that the chosen settings may lose against all timesteps, as a share.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Measure and print, but write nothing.")]
Results = Annotated[
    Path | None,
    typer.Option(
        help="Folder for results; those found there are reused.",
        show_default="the checkpoint's folder, until the run is done",
    ),
]
Stops = Annotated[str, typer.Option(help="Early stops to try, as shares of T.", rich_help_panel=ADVANCED)]
Steps = Annotated[str, typer.Option(help="Timesteps per block to try.", rich_help_panel=ADVANCED)]
Patiences = Annotated[str, typer.Option(help="Patiences to try; none is always tried.", rich_help_panel=ADVANCED)]
Whole = Annotated[
    bool,
    typer.Option(
        "--whole",
        help="Try every setting, also one that cannot be cheaper than another that does.",
        rich_help_panel=ADVANCED,
    ),
]


@app.command(epilog=EXAMPLES, rich_help_panel="Measure")
def measure(
    checkpoint: Core,
    user: User,
    limit: Limit = 200,
    tolerance: Tolerance = 0.01,
    lambda_user: Lambda = DEFAULT_LAMBDA,
    alpha: Alpha = 1.0,
    seed: Seed = 0,
    dry_run: DryRun = False,
    out: Results = None,
    as_json: AsJson = False,
    stops: Stops = "0,0.2,0.4",
    steps: Steps = "4,8,16,25,42,100",
    patiences: Patiences = "1,2,4",
    whole: Whole = False,
) -> None:
    """Measure how few timesteps a core model needs, and write the settings into its checkpoint.

    Compare stops, timesteps, patience and self-conditioning on unseen questions; choose the cheapest that lose next to
    nothing against all timesteps, confirmed on fresh questions. The settings go into config.json, from which servers,
    agents and `ssd2 evaluate` take them; what they cost goes into measured.json beside it. It asks nothing, and
    resumes if interrupted.
    """
    from ssd2.evaluation.grid import Grid
    from ssd2.evaluation.measured_report import as_json as outcome_of
    from ssd2.evaluation.measured_report import as_table, settings_of
    from ssd2.models.checkpoint import write_measured

    grid = Grid(_numbers("stops", stops, float), _numbers("steps", steps, int), _numbers("patiences", patiences, int))
    if not dry_run and checkpoint.is_dir() and not os.access(checkpoint, os.W_OK):
        raise InvalidParameter(f"cannot write to {checkpoint}; copy the checkpoint to a folder of your own")
    folder = out or (None if dry_run else checkpoint)
    kept = folder / RESULTS if folder else None
    measuring = _prepared((checkpoint, user), (lambda_user, alpha), limit, tolerance, seed, kept)
    measurement = _measured(measuring, grid, whole)
    outcome = outcome_of(measuring, measurement, typed_command())
    if not dry_run:
        write_measured(checkpoint, settings_of(measuring, measurement), outcome)
        if out is None:
            (checkpoint / RESULTS).unlink(missing_ok=True)
    typer.echo(json.dumps(outcome, ensure_ascii=False) if as_json else as_table(measuring, measurement))
    typer.echo("nothing was written" if dry_run else f"settings and costs in {checkpoint}", err=True)


def _prepared(
    folders: tuple[Path, Path],
    weights: tuple[float, float],
    limit: int,
    tolerance: float,
    seed: int,
    results_file: Path | None,
) -> Measuring:
    """Load the pair, and check what it is measured with."""
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.measuring import Measuring
    from ssd2.evaluation.pair import Pair
    from ssd2.evaluation.runner import processors
    from ssd2.evaluation.tasks import ORDER_FREE
    from ssd2.models.checkpoint import weights_fingerprint

    pair = Pair.load(*folders)
    core, user = map(weights_fingerprint, folders)
    return Measuring(
        pair,
        ORDER_FREE,
        CollaborationParams(*weights),
        limit,
        tolerance,
        seed,
        (core, user),
        results_file,
        workers=processors(),
    )


def _measured(measuring: Measuring, grid: Grid, whole: bool) -> Measurement:
    """Run to the end with a progress bar, which grows with what turns out to be worth trying."""
    from tqdm import tqdm

    with tqdm(total=0, unit="answer") as bar:

        def plan(answers: int) -> None:
            bar.total += answers
            bar.refresh()

        def show(label: str, answers: int) -> None:
            bar.set_description(label, refresh=False)
            bar.update(answers)

        measuring.on_plan, measuring.on_progress = plan, show
        return measuring.run(grid, whole=whole)


def _numbers(parameter: str, text: str, kind: Callable[[str], _T]) -> tuple[_T, ...]:
    """Read numbers separated by commas; none of an empty text."""
    try:
        return tuple(sorted({kind(number) for number in text.split(",") if number.strip()}))
    except ValueError as error:
        raise InvalidParameter(f"{parameter} is {text!r}; write numbers separated by commas, such as 8,25") from error
