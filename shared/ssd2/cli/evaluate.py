"""`ssd2 evaluate`: accuracy of a pair of models, and comparisons of its settings."""

from __future__ import annotations

import json

import typer

from ssd2.cli import comparing
from ssd2.cli.documents import EXAMPLES as DOCUMENTS_EXAMPLES
from ssd2.cli.documents import documents
from ssd2.cli.help import App, examples
from ssd2.cli.options import (
    DEFAULT_LAMBDA,
    Alpha,
    Answers,
    AsJson,
    AutoregressiveCore,
    AutoregressiveUser,
    Core,
    CoreEvery,
    EntropyBound,
    Lambda,
    Limit,
    Logits,
    Out,
    Patience,
    Projection,
    Results,
    Rows,
    Schedule,
    Seed,
    SelfConditioning,
    Steps,
    Stop,
    TopP,
    User,
)
from ssd2.cli.reports import EXAMPLES as REPORTS_EXAMPLES
from ssd2.cli.reports import reports
from ssd2.demo.paths import CORE, USER
from ssd2.logits.format import FLOAT16, LogitsFormat

app = App(help="Measure a pair of models on questions about the demo's town, or about everyday documents.")
app.command("documents", epilog=DOCUMENTS_EXAMPLES)(documents)
app.command("reports", epilog=REPORTS_EXAMPLES)(reports)

ORDER_FREE_EXAMPLES = examples(
    "ssd2 evaluate order-free --limit 200 --json",
    "ssd2 evaluate order-free --rows reverse,forward --lambda auto --results order-free.jsonl",
    "ssd2 evaluate order-free --core runs/core --user runs/user"
    " --autoregressive-core runs/core-ar --autoregressive-user runs/user-ar",
)


@app.command("order-free", epilog=ORDER_FREE_EXAMPLES)
def order_free(
    limit: Limit = 200,
    core: Core = CORE,
    user: User = USER,
    autoregressive_core: AutoregressiveCore = None,
    autoregressive_user: AutoregressiveUser = None,
    rows: Rows = "",
    lambda_user: Lambda = DEFAULT_LAMBDA,
    alpha: Alpha = 1.0,
    steps: Steps = None,
    seed: Seed = 0,
    results: Results = None,
    answers: Answers = None,
    as_json: AsJson = False,
    stop: Stop = None,
    patience: Patience = None,
    entropy_bound: EntropyBound = None,
    schedule: Schedule = "even",
    core_every: CoreEvery = 1,
    projection: Projection = "sampling",
    top_p: TopP = 0.2,
    self_conditioning: SelfConditioning = None,
    logits: Logits = str(FLOAT16),
) -> None:
    """Ask questions whose answer holds a value from each side, in any order, within one block.

    Compare both models together with the core alone, the user model alone and an autoregressive pair, on the same
    unseen questions: the fact first or last, chained facts, forms and topics held out of training, notes that disagree,
    and notes that do not have it. --json prints, for each row, the share of right answers of each system, with n and
    95% intervals.
    """
    from ssd2.evaluation import order_free as benchmark
    from ssd2.evaluation.generations import AnswersFile
    from ssd2.evaluation.order_free_report import as_table

    logits_format, kept = LogitsFormat.parse(logits), AnswersFile(answers) if answers else None
    decoding = {
        "steps": steps,
        "stop": stop,
        "patience": patience,
        "entropy_bound": entropy_bound,
        "schedule": schedule,
        "core_every": core_every,
        "projection": projection,
        "top_p": top_p,
        "self_conditioning": self_conditioning,
    }
    asked = comparing.rows_named(rows)
    other, left_out = comparing.autoregressive_pair(autoregressive_core, autoregressive_user)
    pair, collaboration, params = comparing.loaded((core, user), lambda_user, alpha, decoding)
    cells = benchmark.cells(pair, other, collaboration, params, asked, logits_format)
    with comparing.progress_bar(limit * len(cells)) as bar:
        found = comparing.run_cells(cells, limit, seed, results, bar)
    if kept:
        comparing.keep_answers(kept, cells, found, limit, seed)
    report = benchmark.as_json(benchmark.by_row(cells, found), left_out)
    typer.echo(json.dumps(report) if as_json else as_table(report))


def _add_comparison(name: str, summary: str) -> None:
    """Add `ssd2 evaluate NAME` for one of the experiments."""

    @app.command(
        name,
        help=summary,
        epilog=examples(f"ssd2 evaluate {name} --limit 300 --out reports"),
        rich_help_panel="Comparisons of settings",
    )
    def command(
        limit: Limit = 200,
        core: Core = CORE,
        user: User = USER,
        autoregressive_core: AutoregressiveCore = None,
        autoregressive_user: AutoregressiveUser = None,
        lambda_user: Lambda = DEFAULT_LAMBDA,
        alpha: Alpha = 1.0,
        steps: Steps = None,
        seed: Seed = 0,
        out: Out = None,
        as_json: AsJson = False,
        patience: Patience = None,
    ) -> None:
        from ssd2.evaluation.report import as_table

        chosen = {"steps": steps, "patience": patience}
        pair, collaboration, decoding = comparing.loaded((core, user), lambda_user, alpha, chosen)
        other, left_out = comparing.autoregressive_pair(autoregressive_core, autoregressive_user)
        if left_out and name in comparing.OF_BOTH_KINDS:
            typer.echo(f"no autoregressive pair: {left_out}", err=True)
        plan = comparing.planned(name, pair, other, collaboration, decoding)
        with comparing.progress_bar(comparing.answers_of(plan, limit)) as bar:
            lines = comparing.compare(plan, limit, seed, out, bar)
        typer.echo(json.dumps(comparing.as_json(lines)) if as_json else as_table(plan[0][1], lines))


_add_comparison("weights", "Sweep λ and α as in the paper's Table 1, for both kinds of models.")
_add_comparison("rules", "Compare rules that find λ by themselves with every constant λ, on every row.")
_add_comparison("steps", "Compare 4 to 250 timesteps per block, down to t = 0.")
_add_comparison("stop", "Compare early stops at 0, 0.2T and 0.4T.")
_add_comparison("patience", "Compare patiences: how soon a block ends once its tokens stay the same.")
_add_comparison("self-conditioning", "Compare the predictions that are fed back: own, projection and mixed.")
_add_comparison("few-timesteps", "Compare ways to ask the core less often: other schedules, logits used again.")
_add_comparison("projections", "Compare greedy, sampling and multi-hot projections, with narrow and wide nuclei.")
_add_comparison("formats", "Compare formats of the core's logits: float16, uint8 and the 64, 16 and 4 largest.")
