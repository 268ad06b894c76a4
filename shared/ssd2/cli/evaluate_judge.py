"""`ssd2 evaluate judge`: a language model's opinion of answers."""

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

from ssd2.cli.options import AsJson, By, typed_command
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.evaluation.judge import Comparisons, Estimate, Judge, Question, Ratings, Verdict

EPILOG = (
    "Examples: ssd2 evaluate judge answers.jsonl --by system --endpoint https://api.openai.com/v1 --model gpt-4 "
    "--out reports --dry-run; ssd2 evaluate judge ours.jsonl theirs.jsonl --against theirs "
    "--endpoint http://localhost:8000/v1 --model judge --out reports --yes"
)


def judge(
    texts: Annotated[
        list[Path],
        typer.Argument(
            help='.jsonl files with {"prompt", "text"} a line ("instruction" and "question" are prompts too). '
            "Each file is a row of the table."
        ),
    ],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible, like https://api.openai.com/v1.")],
    model: Annotated[str, typer.Option(help="Its name there.")],
    out: Annotated[Path, typer.Option(help="Folder for verdicts and report; what is found there is not asked again.")],
    by: By = None,
    against: Annotated[
        str | None,
        typer.Option(help="Row to compare the others with, in both orders; default: rate each answer."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Answers of each row, from the first.", min=1)] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable with the API key.")] = "OPENAI_API_KEY",
    temperature: Annotated[
        float | None, typer.Option(help="Default: the paper's, 0 for ratings and 0.2 for comparisons.", min=0)
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Of a reply.", min=1)] = 1024,
    max_tokens_field: Annotated[
        str, typer.Option(help="How the endpoint calls that; some models want max_completion_tokens.")
    ] = "max_tokens",
    concurrency: Annotated[int, typer.Option(help="Questions on their way at once.", min=1, max=100)] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for an attempt.", min=0.1)] = 120,
    attempts: Annotated[int, typer.Option(help="For a question, on 429, 5xx and broken connections.", min=1)] = 6,
    price_in: Annotated[float | None, typer.Option(help="Of a million tokens of questions.", min=0)] = None,
    price_out: Annotated[float | None, typer.Option(help="Of a million tokens of replies.", min=0)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the calls are made.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate the cost and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a language model rate or compare answers, by the templates of the paper's App. G.

    Sends prompts and answers to the endpoint. The API key is read from the environment.
    """
    from ssd2.evaluation.chat import Endpoint
    from ssd2.evaluation.generations import read_generations
    from ssd2.evaluation.judge import Judge, comparison_questions, estimate, rating_questions, read_verdicts
    from ssd2.evaluation.judge_templates import TEMPERATURES

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
    from ssd2.evaluation.judge import Pair

    every = [one for group in plan.values() for one in group]
    return [q for one in every for q in ((one.answer_first, one.baseline_first) if isinstance(one, Pair) else (one,))]


def _told(expected: Estimate, asked: Judge) -> str:
    whom = f"{asked.endpoint.model} at {asked.endpoint.host}"
    price = "" if expected.most_price is None else f", price at most {math.ceil(expected.most_price * 100) / 100:,.2f}"
    return (
        f"{expected.calls} calls to {whom}, {expected.known} verdicts are there; equal questions are asked once\n"
        f"about {expected.tokens_in:,} tokens of questions, at most {expected.most_tokens_out:,} of replies{price}"
    )


def _confirm(expected: Estimate, asked: Judge, yes: bool) -> None:
    typer.echo(_told(expected, asked), err=True)
    if yes or not expected.calls:
        return
    if not _is_terminal():
        raise InvalidParameter(f"{expected.calls} calls may cost money; add --yes to make them, --dry-run to not")
    typer.confirm("Make them?", abort=True, err=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(questions: Sequence[Question], asked: Judge, key: str | None, file: Path, known: int) -> dict[str, Verdict]:
    from tqdm import tqdm

    from ssd2.evaluation.judge import ask_missing

    with tqdm(total=len(set(questions)), initial=known, unit="verdict") as bar:
        verdicts = ask_missing(questions, asked, key, file, on_progress=bar.update)
    mine = [verdicts[question.key(asked)] for question in dict.fromkeys(questions)]
    tokens_in, tokens_out = (sum(getattr(v, f"{kind}_tokens") or 0 for v in mine) for kind in ("prompt", "completion"))
    typer.echo(f"the endpoint counted {tokens_in:,} tokens of questions, {tokens_out:,} of replies", err=True)
    return verdicts


def _show(plan: Any, against: str | None, asked: Judge, verdicts: dict[str, Verdict], out: Path, as_json: bool) -> None:
    """Print the results and write the report."""
    from ssd2.evaluation import judge_report, judge_results

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
