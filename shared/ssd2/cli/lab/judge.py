"""`ssd2 lab judge`: ratings and comparisons of answers by a language model."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli.help import ADVANCED, examples
from ssd2.cli.options import AsJson, By, typed_command
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.lab.judge import Comparisons, Estimate, Judge, Question, Ratings, Verdict

EXAMPLES = examples(
    "ssd2 lab judge answers.jsonl --by system --endpoint https://api.openai.com/v1 --model gpt-4 --out reports "
    "--dry-run",
    "ssd2 lab judge ours.jsonl theirs.jsonl --against theirs --endpoint http://localhost:8000/v1 --model judge "
    "--out reports --yes",
)


Texts = Annotated[
    list[Path],
    typer.Argument(
        help='Files to judge, each a row of the table: .jsonl with {"prompt", "text"} per line ("instruction" and '
        '"question" are prompts too).'
    ),
]
EndpointUrl = Annotated[str, typer.Option(help="OpenAI-compatible endpoint, such as https://api.openai.com/v1.")]
JudgingModel = Annotated[str, typer.Option(help="Name of the judging model at the endpoint.")]
Folder = Annotated[Path, typer.Option(help="Folder for verdicts and report; verdicts found there are reused.")]
Against = Annotated[
    str | None,
    typer.Option(
        help="Row to compare the others with, in both orders; without it each answer is rated.",
        show_default=False,
    ),
]
FirstAnswers = Annotated[
    int | None, typer.Option(help="Judge only the first N answers of each row.", min=1, show_default="all")
]
KeyVariable = Annotated[str, typer.Option(help="Environment variable with the API key.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate the cost and exit.")]
Yes = Annotated[bool, typer.Option("--yes", help="Make the calls without asking for confirmation.")]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Temperature of the judge.",
        min=0,
        show_default="the paper's: 0 for ratings, 0.2 for comparisons",
        rich_help_panel=ADVANCED,
    ),
]
MaxTokens = Annotated[int, typer.Option(help="Longest reply, in tokens.", min=1, rich_help_panel=ADVANCED)]
MaxTokensField = Annotated[
    str,
    typer.Option(help="Field that limits a reply; some models expect max_completion_tokens.", rich_help_panel=ADVANCED),
]
Concurrency = Annotated[int, typer.Option(help="Requests in flight at once.", min=1, max=100, rich_help_panel=ADVANCED)]
Timeout = Annotated[float, typer.Option(help="Seconds per attempt.", min=0.1, rich_help_panel=ADVANCED)]
Attempts = Annotated[
    int,
    typer.Option(help="Attempts per question, on 429, 5xx and broken connections.", min=1, rich_help_panel=ADVANCED),
]
PriceIn = Annotated[
    float | None,
    typer.Option(help="Price of a million tokens of questions.", min=0, show_default=False, rich_help_panel=ADVANCED),
]
PriceOut = Annotated[
    float | None,
    typer.Option(help="Price of a million tokens of replies.", min=0, show_default=False, rich_help_panel=ADVANCED),
]


def judge(
    texts: Texts,
    endpoint: EndpointUrl,
    model: JudgingModel,
    out: Folder,
    by: By = None,
    against: Against = None,
    limit: FirstAnswers = None,
    key_env: KeyVariable = "OPENAI_API_KEY",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    temperature: Temperature = None,
    max_tokens: MaxTokens = 1024,
    max_tokens_field: MaxTokensField = "max_tokens",
    concurrency: Concurrency = 4,
    timeout: Timeout = 120,
    attempts: Attempts = 6,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
) -> None:
    """Rate or compare answers by a language model, with the templates of the paper's App. G.

    Prompts and answers are sent to the endpoint.
    """
    from ssd2.evaluation.generations import read_generations
    from ssd2.lab.chat import Endpoint
    from ssd2.lab.judge import Judge, comparison_questions, estimate, rating_questions, read_verdicts
    from ssd2.lab.judge_templates import TEMPERATURES

    if (price_in is None) != (price_out is None):
        raise InvalidParameter("a price needs both --price-in and --price-out")
    template = "comparison" if against else "rating"
    asked = Judge(
        Endpoint(endpoint, model, max_tokens_field, timeout, attempts),
        TEMPERATURES[template] if temperature is None else temperature,
        max_tokens,
        concurrency,
    )
    groups = {label: group[:limit] for label, group in read_generations(texts, by).items()}
    plan = comparison_questions(groups, against) if against else rating_questions(groups)
    questions, file = _questions(plan), out / "verdicts.jsonl"
    expected = estimate(questions, asked, read_verdicts(file), price_in, price_out)
    if dry_run:
        typer.echo(json.dumps(asdict(expected)) if as_json else _told(expected, asked))
        return
    _confirm(expected, asked, yes)
    verdicts = _ask(questions, asked, os.environ.get(key_env, "").strip() or None, file, expected.known)
    _show(plan, against, asked, verdicts, out, as_json)


def _questions(plan: Ratings | Comparisons) -> list[Question]:
    from ssd2.lab.judge import Pair

    every = [one for group in plan.values() for one in group]
    return [q for one in every for q in ((one.answer_first, one.baseline_first) if isinstance(one, Pair) else (one,))]


def _told(expected: Estimate, asked: Judge) -> str:
    whom = f"{asked.endpoint.model} at {asked.endpoint.host}"
    price = "" if expected.most_price is None else f", price at most {math.ceil(expected.most_price * 100) / 100:,.2f}"
    return (
        f"{expected.calls} calls to {whom}; {expected.known} verdicts are stored; equal questions are asked once\n"
        f"about {expected.tokens_in:,} tokens of questions, at most {expected.most_tokens_out:,} of replies{price}"
    )


def _confirm(expected: Estimate, asked: Judge, yes: bool) -> None:
    typer.echo(_told(expected, asked), err=True)
    if yes or not expected.calls:
        return
    if not _is_terminal():
        raise InvalidParameter(
            f"{expected.calls} calls may cost money; add --yes to make them, or --dry-run to only estimate"
        )
    typer.confirm("Make them?", abort=True, err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(questions: Sequence[Question], asked: Judge, key: str | None, file: Path, known: int) -> dict[str, Verdict]:
    from tqdm import tqdm

    from ssd2.lab.judge import ask_missing

    with tqdm(total=len(set(questions)), initial=known, unit="verdict") as bar:
        verdicts = ask_missing(questions, asked, key, file, on_progress=bar.update)
    mine = [verdicts[question.key(asked)] for question in dict.fromkeys(questions)]
    tokens_in, tokens_out = (sum(getattr(v, f"{kind}_tokens") or 0 for v in mine) for kind in ("prompt", "completion"))
    typer.echo(f"the endpoint counted {tokens_in:,} tokens of questions, {tokens_out:,} of replies", err=True)
    return verdicts


def _show(plan: Any, against: str | None, asked: Judge, verdicts: dict[str, Verdict], out: Path, as_json: bool) -> None:
    """Print the results and write the report."""
    from ssd2.lab import judge_report, judge_results

    if against:
        compared = judge_results.compare(plan, against, asked, verdicts)
        page = judge_report.write_comparison_report(out, compared, asked, typed_command())
        rows, table = [one.as_json() for one in compared], judge_results.comparison_table(compared)
    else:
        rated = judge_results.rate(plan, asked, verdicts)
        page = judge_report.write_rating_report(out, rated, asked, typed_command())
        rows, table = [one.as_json() for one in rated], judge_results.rating_table(rated)
    typer.echo(f"report in {page}", err=True)
    facts = {"rows": rows, "model": asked.endpoint.model, "temperature": asked.temperature}
    typer.echo(json.dumps(facts) if as_json else table)
