"""`ssd2 evaluate reports`: all reports about a pair, into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd2.cli import comparing
from ssd2.cli.help import examples
from ssd2.cli.lab.dynamics import STEPS, answers_of, watch
from ssd2.cli.options import (
    DEFAULT_LAMBDA,
    Alpha,
    AutoregressiveCore,
    AutoregressiveUser,
    Core,
    Lambda,
    Limit,
    Patience,
    Seed,
    Steps,
    User,
    typed_command,
)
from ssd2.demo.paths import CORE, USER
from ssd2.errors import InvalidParameter

BENCHMARK, DYNAMICS = "order-free", "dynamics"
EXAMPLES = examples(
    "ssd2 evaluate reports --out reports",
    "ssd2 evaluate reports --out reports --limit 20 --only order-free,steps,dynamics",
    "ssd2 evaluate reports --out reports --only weights,rules --steps 42 --patience 2",
)


def reports(
    out: Annotated[Path, typer.Option(help="Folder for results and reports; results found there are reused.")],
    limit: Limit = 300,
    core: Core = CORE,
    user: User = USER,
    autoregressive_core: AutoregressiveCore = None,
    autoregressive_user: AutoregressiveUser = None,
    only: Annotated[
        str, typer.Option(help="Reports to make, separated by commas.", show_default="all", metavar="NAME,…")
    ] = "",
    lambda_user: Lambda = DEFAULT_LAMBDA,
    alpha: Alpha = 1.0,
    steps: Steps = None,
    seed: Seed = 0,
    patience: Patience = None,
) -> None:
    """Make all reports about a pair: the order-free benchmark, every comparison of settings, and the dynamics.

    Each is a Markdown page with a plot, written as results come. Interrupted, the command resumes where it stopped.
    """
    from ssd2.evaluation import order_free
    from ssd2.evaluation.experiments import EXPERIMENTS
    from ssd2.evaluation.order_free_report import write_order_free_report
    from ssd2.evaluation.rows import ROWS

    names = _chosen(only)
    chosen = {"steps": steps, "patience": patience}
    pair, collaboration, decoding = comparing.loaded((core, user), lambda_user, alpha, chosen)
    other, left_out = comparing.autoregressive_pair(autoregressive_core, autoregressive_user)
    if left_out:
        typer.echo(f"no autoregressive pair: {left_out}", err=True)
    benchmark = order_free.cells(pair, other, collaboration, decoding, tuple(ROWS)) if BENCHMARK in names else []
    planned = {
        name: comparing.planned(name, pair, other, collaboration, decoding) for name in names if name in EXPERIMENTS
    }
    answers = limit * len(benchmark) + (DYNAMICS in names) * answers_of(limit)
    answers += sum(comparing.answers_of(plan, limit) for plan in planned.values())
    with comparing.progress_bar(answers) as bar:
        if benchmark:
            results = comparing.run_cells(benchmark, limit, seed, out / f"{BENCHMARK}.jsonl", bar)
            report = order_free.as_json(order_free.by_row(benchmark, results), left_out)
            typer.echo(f"report in {write_order_free_report(out, report, typed_command())}", err=True)
        for plan in planned.values():
            comparing.compare(plan, limit, seed, out, bar)
        if DYNAMICS in names:
            watch(pair, collaboration, limit, STEPS, seed, out, bar.update)


def _chosen(only: str) -> list[str]:
    """Return the reports of a list separated by commas, in order; all of them if it is empty."""
    from ssd2.evaluation.experiments import EXPERIMENTS

    every = [BENCHMARK, *EXPERIMENTS, DYNAMICS]
    chosen = [name.strip() for name in only.split(",") if name.strip()] or every
    if unknown := [name for name in chosen if name not in every]:
        raise InvalidParameter(f"there is no report {unknown[0]!r}; choose from {', '.join(every)}", parameter="only")
    return [name for name in every if name in chosen]
