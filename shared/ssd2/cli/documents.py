"""`ssd2 evaluate documents`: everyday documents and questions, of a pair of models that write real language."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.algorithm.params import parse_lambda
from ssd2.cli.help import ADVANCED, examples
from ssd2.cli.options import AsJson, Out, typed_command
from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from ssd2.algorithm.params import CollaborationParams
    from ssd2.evaluation.documents.answering import Run
    from ssd2.evaluation.documents.report import Measured
    from ssd2.models.layouts import AnswerLayout

KINDS_HELP = "Kinds of questions, separated by commas: fact, date, sum, two-documents, absent, public, two-source."
LAYOUT_HELP = (
    "Orders of an answer, separated by commas: plain, or fact-first (the note that it rests on, then the answer "
    "itself), for models with a chat template."
)
EXAMPLES = examples(
    "ssd2 evaluate documents --core models/smollm2 --out reports",
    "ssd2 evaluate documents --core models/qwen-1.5 --user models/qwen-0.5 --lambda 0.3,0.5,auto",
    "ssd2 evaluate documents --core models/smollm2 --passages found.jsonl --limit 20",
)


def documents(
    core: Annotated[Path, typer.Option(help="Checkpoint folder of the core model.")],
    user: Annotated[
        Path | None, typer.Option(help="Checkpoint folder of the user model.", show_default="the core model's")
    ] = None,
    lambda_user: Annotated[
        str,
        typer.Option(
            "--lambda",
            "--lambda-user",
            help="Weights of the user model (λ), separated by commas: numbers, auto (one for each position, from what "
            "the passages change there) or difference (that change, α times, added to the core).",
        ),
    ] = "0.5,1",
    alpha: Annotated[str, typer.Option(help="Contrastive strengths (α), separated by commas.")] = "1",
    passages: Annotated[
        Path | None,
        typer.Option(
            help="Passages found by the agent's search (JSON lines of user-agent docs search --questions), in place of "
            "the right document.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            help='System prompt of both models, for models with a chat template; "" for their own.',
            show_default="the agent's",
        ),
    ] = None,
    answer_layout: Annotated[str, typer.Option(help=LAYOUT_HELP)] = "plain",
    kinds: Annotated[str | None, typer.Option(help=KINDS_HELP, show_default="all")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Questions of each kind and language.", min=1, show_default="all")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.", min=1, rich_help_panel=ADVANCED)] = 40,
    batch: Annotated[int, typer.Option(help="Questions answered at once.", min=1, rich_help_panel=ADVANCED)] = 8,
    precision: Annotated[
        str, typer.Option(help="Weights: float32, bfloat16 or int8.", rich_help_panel=ADVANCED)
    ] = "float32",
) -> None:
    """Ask questions about everyday documents: of each model alone, and of both together by λ and α.

    With --out, a stopped run resumes where it was.
    """
    from ssd2.evaluation.documents.answering import settings_of
    from ssd2.evaluation.documents.report import as_json as results_of
    from ssd2.evaluation.documents.report import as_tables

    settings = settings_of([parse_lambda(one) for one in lambda_user.split(",")], _numbers("alpha", alpha))
    layouts = _layouts(answer_layout)
    run = _prepared(core, user or core, passages, kinds, limit, max_tokens, precision, system, layouts)
    measured = _measured(run, layouts, settings, batch, out)
    typer.echo(json.dumps(results_of(run, measured)) if as_json else as_tables(measured))


def _prepared(
    core: Path,
    user: Path,
    passages: Path | None,
    kinds: str | None,
    limit: int | None,
    max_tokens: int,
    precision: str,
    system: str | None,
    layouts: Sequence[AnswerLayout],
) -> Run:
    """Load the pair, choose the questions and what is given beside them."""
    from ssd2.evaluation.documents.answering import Run, found_passages, given_passages
    from ssd2.evaluation.documents.questions import chosen_questions
    from ssd2.evaluation.pair import Pair
    from ssd2.models.chat import BRIEFLY
    from ssd2.models.checkpoint import load_checkpoint

    questions = chosen_questions(kinds.split(",") if kinds else None, limit)
    given = found_passages(questions, passages) if passages else given_passages(questions)
    core_model = load_checkpoint(core, precision=precision)
    is_one = core.resolve() == user.resolve()  # its predictions are a function of prompts: one copy serves both sides
    pair = Pair(core_model, core_model if is_one else load_checkpoint(user, precision=precision))
    has_template = pair.core.tokenizer.takes_conversations and pair.user.tokenizer.takes_conversations
    if system and not has_template:
        raise InvalidParameter("these models have no chat template for a system prompt; leave out --system")
    if any(layout != "plain" for layout in layouts) and not has_template:
        raise InvalidParameter("these models have no chat template for another layout; leave out --answer-layout")
    if system is None:
        system = BRIEFLY if has_template else ""
    decoding = pair.decoding(projection="greedy", max_tokens=max_tokens)
    return Run(pair, decoding, questions, given, "search" if passages else "given", precision, system)


def _measured(
    run: Run, layouts: Sequence[AnswerLayout], settings: Sequence[CollaborationParams], batch: int, out: Path | None
) -> list[Measured]:
    """Answer in every layout and setting; with a folder, write a report of the results so far after each."""
    from tqdm import tqdm

    from ssd2.evaluation.documents.answering import answer_all
    from ssd2.evaluation.documents.report import NAME, measure, write_report

    measured: list[Measured] = []
    kept = out / f"{NAME}-{run.mode}.jsonl" if out else None
    every = list(product(layouts, settings))
    with tqdm(total=len(every) * len(run.questions), unit="answer") as bar:
        for layout, collaboration in every:
            bar.set_description(f"{layout}, {collaboration.label}")
            asked = replace(run, layout=layout)
            answers = answer_all(asked, collaboration, batch_size=batch, kept=kept, on_progress=bar.update)
            measured.append(measure(layout, collaboration, run.questions, answers))
            if out:
                write_report(out, run, measured, len(every), typed_command())
    return measured


def _layouts(text: str) -> list[AnswerLayout]:
    """Read layouts separated by commas, each once."""
    from ssd2.models.layouts import LAYOUTS

    known = {str(layout): layout for layout in LAYOUTS}
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise InvalidParameter(
            f"there is no answer layout {unknown[0][:80]!r}; choose from {', '.join(known)}", parameter="answer_layout"
        )
    return [known[name] for name in names]


def _numbers(parameter: str, text: str) -> list[float]:
    """Read numbers separated by commas."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise InvalidParameter(
            f"{text!r} is not a list of numbers; write for example 0.3,0.5", parameter=parameter
        ) from error
