"""`user-agent tune`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from user_agent.commands.setting_options import ANSWER, LINE, with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from user_agent.store.tuned import Choice

EXAMPLES = examples(
    "user-agent tune   (the linked folders and the configured core; nothing of the documents is sent)",
    "user-agent tune --docs ~/notes --core localhost:50051",
    "user-agent tune --questions mine.tsv   (sends the questions in the file)",
    "user-agent tune --show",
)

_VARIED = ("lambda_user", "alpha")
_WITHOUT_EFFECT = (
    "max_tokens",
    "private_context",
    "speculation",
    "stop_texts",
    "frequency_penalty",
    "presence_penalty",
)
_ANSWER = tuple(name for name in ANSWER if name not in (*_VARIED, *_WITHOUT_EFFECT))

Docs = Annotated[
    list[Path] | None,
    typer.Option(metavar="<path>", help="Document or folder to tune for instead of the linked folders; repeatable."),
]
Questions = Annotated[
    Path | None,
    typer.Option(
        metavar="<path>",
        help="File of your own questions, one per line: question, TAB, expected answer; or JSON lines "
        '{"question": …, "answer": …}. They give the best measurement, but are sent to the core. Without the '
        "option, questions are made from the documents and stay on this device.",
    ),
]
Limit = Annotated[int, typer.Option(help="Maximum number of questions to ask.", min=1)]
MaxTokens = Annotated[
    int,
    typer.Option(
        help="Maximum answer length in tokens; lower than for `ask`, as a run takes hundreds of answers.", min=1
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Start without asking for confirmation.")]
Show = Annotated[bool, typer.Option("--show", help="Print the chosen values and exit.")]
Reset = Annotated[bool, typer.Option("--reset", help="Delete the chosen values and interrupted runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@with_settings(*LINE, *_ANSWER, "user_model", "device", "precision", "data_dir", core="none")
def tune(
    config: AgentConfig,
    docs: Docs = None,
    questions: Questions = None,
    questions_limit: Limit = 40,
    max_tokens: MaxTokens = 24,
    yes: Yes = False,
    show: Show = False,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Choose λ and α for your own documents; `ask` then uses them with the same two models.

    Compare λ 0, 0.1 … 0.5 and 1 with α 0 and 1. It shows what it will send, asks for confirmation, and resumes if
    interrupted.
    """
    if reset or show:
        _reset() if reset else _show(as_json)
        return
    from rich.console import Console

    from user_agent.answering.service import new_id
    from user_agent.line.line import credentials_of
    from user_agent.store.ledger import tracing
    from user_agent.stores import open_stores
    from user_agent.tuning.command import TuneOptions, run_tune

    config.check_user_model()
    options = TuneOptions(
        docs=tuple(docs or ()),
        questions=questions,
        core=config.core or "",
        questions_limit=questions_limit,
        answers=config.model_copy(update={"max_tokens": max_tokens}),
        timeout_s=config.timeout,
        is_confirmed=yes,
        credentials=credentials_of(config),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with open_stores(config) as stores, tracing(new_id("tune")):
        linked = partial(stores.documents.passages, config.request("").document_ids)
        choice, file = run_tune(options, console, stores.ledger, linked)
    if as_json:
        typer.echo(json.dumps(asdict(choice), ensure_ascii=False))
    else:
        _print(choice)
    typer.echo(f"saved in {file}; `user-agent ask` uses these values unless λ and α are given", err=True)


def _reset() -> None:
    from user_agent.store.tuned import config_folder, forget_choices

    deleted = forget_choices()
    typer.echo(f"deleted {deleted} files in {config_folder()}" if deleted else "there were no saved values", err=True)


def _show(as_json: bool) -> None:
    from user_agent.store.tuned import saved_choices

    choices = saved_choices()
    if as_json:
        typer.echo(json.dumps([asdict(choice) for choice in choices], ensure_ascii=False))
    elif not choices:
        typer.echo("nothing is tuned yet; run `user-agent tune`", err=True)
    else:
        for choice in choices:
            _print(choice)


def _print(choice: Choice) -> None:
    from rich.console import Console

    from user_agent.tuning.report import curve, heading

    console = Console(highlight=False, soft_wrap=True)
    console.print(heading(choice), markup=False)
    console.print(curve(choice))
