"""Runs of experiments from the command line: models loaded, progress shown, reports written as results come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from ssd2.cli.options import typed_command
from ssd2.demo.paths import AUTOREGRESSIVE
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from tqdm import tqdm

    from ssd2.algorithm.params import CollaborationParams, DecodingParams, LambdaUser
    from ssd2.evaluation.experiments import Experiment
    from ssd2.evaluation.generations import AnswersFile
    from ssd2.evaluation.pair import Pair
    from ssd2.evaluation.report import Line
    from ssd2.evaluation.result import Result
    from ssd2.evaluation.runner import Cell, Run

    Planned: TypeAlias = "Sequence[tuple[Pair, Experiment]]"

OF_BOTH_KINDS = ("weights",)
"""Experiments that an autoregressive pair takes part in."""

RESULTS = "results.jsonl"
"""File in the folder of reports with the results of all of them: what two experiments share is computed once."""


def rows_named(names: str) -> tuple[str, ...]:
    """Return the rows of a list separated by commas, in the order of `ROWS`; all of them if it is empty."""
    from ssd2.evaluation.rows import ROWS

    chosen = [name.strip() for name in names.split(",") if name.strip()] or list(ROWS)
    if unknown := [name for name in chosen if name not in ROWS]:
        raise InvalidParameter(f"there is no row {unknown[0]!r}; choose from {', '.join(ROWS)}", parameter="rows")
    return tuple(name for name in ROWS if name in chosen)


def loaded(
    folders: tuple[Path, Path], lambda_user: LambdaUser, alpha: float, decoding: Mapping[str, Any]
) -> tuple[Pair, CollaborationParams, DecodingParams]:
    """Load a pair, and check the settings that it is measured with."""
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.pair import Pair

    pair = Pair.load(*folders)
    return pair, CollaborationParams(lambda_user, alpha), pair.decoding(**decoding)


def autoregressive_pair(core: Path | None, user: Path | None) -> tuple[Pair | None, str | None]:
    """Load the pair that writes token by token: the given one, or the demo's.

    Returns:
        None, and why, if none was given and the demo's is not there.

    Raises:
        InvalidParameter: if only one of its models was given.
        SlingshotError: if a model that was given cannot be loaded.
    """
    from ssd2.evaluation.pair import Pair

    if (core is None) != (user is None):
        raise InvalidParameter(
            "--autoregressive-core needs --autoregressive-user, and the other way round; add the missing one"
        )
    if core is None and not all(folder.is_dir() for folder in AUTOREGRESSIVE):
        return None, "the demo has no such pair here; give one with --autoregressive-core and --autoregressive-user"
    return Pair.load(core or AUTOREGRESSIVE[0], user or AUTOREGRESSIVE[1]), None


@contextmanager
def progress_bar(answers: int) -> Iterator[tqdm[Any]]:
    """Show the progress of so many answers on standard error."""
    from tqdm import tqdm

    with tqdm(total=answers, unit="answer") as bar:
        yield bar


def started(bar: tqdm[Any], limit: int, seed: int, results_file: Path | None) -> Run:
    """Return how cells are run: on all processors, with their progress on the bar."""
    from ssd2.evaluation.runner import Run, processors

    def show(label: str, answers: int) -> None:
        bar.set_description(label, refresh=False)
        bar.update(answers)

    return Run(limit, seed, workers=processors(), results_file=results_file, on_progress=show)


def planned(
    name: str, pair: Pair, other: Pair | None, collaboration: CollaborationParams, decoding: DecodingParams
) -> list[tuple[Pair, Experiment]]:
    """Plan an experiment with a pair and, where both kinds of models are compared, with the other one."""
    from ssd2.evaluation.experiments import EXPERIMENTS

    plan = [(pair, EXPERIMENTS[name](collaboration, decoding))]
    if other and name in OF_BOTH_KINDS:
        plan.append((other, EXPERIMENTS[name](collaboration, other.decoding())))
    return plan


def answers_of(plan: Planned, limit: int) -> int:
    """Return how many answers some experiments ask for."""
    return sum(limit * len(experiment.settings) * len(experiment.rows) for _, experiment in plan)


def compare(plan: Planned, limit: int, seed: int, out: Path | None, bar: tqdm[Any]) -> list[Line]:
    """Run an experiment with one pair or several and, with `out`, write its report as results come.

    Args:
        plan: the same experiment with each pair.
        limit: items of each row.
        seed: of items and decodes.
        out: folder of results and report; None for none.
        bar: shows the progress.
    """
    from ssd2.evaluation.report import lines_of, write_report
    from ssd2.evaluation.runner import Cell

    experiment = plan[0][1]
    cells = [Cell(pair, setting, row) for pair, asked in plan for setting in asked.settings for row in asked.rows]
    total = sum(len(asked.settings) for _, asked in plan)

    def write(results: Mapping[int, Result]) -> None:
        """Write a report of the results so far: a run that is stopped has one too."""
        if out:
            write_report(out, experiment, lines_of(cells, results), total, typed_command())

    run = replace(
        started(bar, limit, seed, out / RESULTS if out else None), counts_exact=experiment.counts_exact, on_result=write
    )
    results = dict(enumerate(run.results(cells)))
    write(results)
    if out:
        typer.echo(f"report in {out / f'{experiment.name}.md'}", err=True)
    return lines_of(cells, results)


def run_cells(cells: Sequence[Cell], limit: int, seed: int, results_file: Path | None, bar: tqdm[Any]) -> list[Result]:
    """Run cells, keeping the texts of their answers."""
    return replace(started(bar, limit, seed, results_file), keeps_answers=True).results(cells)


def keep_answers(file: AnswersFile, cells: Sequence[Cell], results: Sequence[Result], limit: int, seed: int) -> None:
    """Write the texts of all answers, system by system within each row."""
    from ssd2.evaluation.rows import ROWS

    for cell, result in zip(cells, results, strict=True):
        file.add(cell.setting.label, ROWS[cell.row].items(limit, seed), result.answers)


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """Return the JSON object of a comparison."""
    return {"results": [line.as_json() for line in lines]}
