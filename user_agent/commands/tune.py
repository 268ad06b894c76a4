"""`user-agent tune`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from user_agent.commands.options import Ca, ClientCertificate, ClientKey, Insecure

if TYPE_CHECKING:
    from user_agent.store.tuned import Choice

EXAMPLES = """
Examples:

  user-agent tune --docs ~/notes --core localhost:50051   (nothing of the documents is sent)

  user-agent tune --docs ~/notes --questions mine.tsv --core localhost:50051   (asks what is in the file)

  user-agent tune --show
"""


Docs = Annotated[list[Path] | None, typer.Option(help="A document, or a folder of them; may be given again.")]
Core = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of the core server; not needed where it is kept: `user-agent config set core HOST:PORT`."
    ),
]
Questions = Annotated[
    Path | None,
    typer.Option(
        help="File of your own questions, a line each: question, TAB, what has to stand in the answer; or JSON lines "
        '{"question": …, "answer": …}. They are asked of the core, the better measure. Without it, questions are made '
        "from the documents and stay on this device."
    ),
]
Limit = Annotated[int, typer.Option(help="Most questions to ask.", min=1)]
Model = Annotated[
    str | None, typer.Option(help="Name of the core's model; default: its first one that fits the user model.")
]
UserFolder = Annotated[Path | None, typer.Option(help="Checkpoint folder of the user model; default: the demo's.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Timesteps a block; default: what suits the family, 25 for SSD-2.", show_default=False),
]
MaxTokens = Annotated[
    int, typer.Option(help="Longest answer, in tokens; shorter than `ask`'s, as a run takes hundreds, and no setting.")
]
Seed = Annotated[
    int | None, typer.Option(help="Repeat a run. Leave it out for real use: a guessed seed replays your draws.")
]
Timeout = Annotated[float | None, typer.Option(help="Seconds to wait for each answer of the core; default: 10.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before it starts.")]
Show = Annotated[bool, typer.Option("--show", help="Print what was chosen, and do nothing.")]
Reset = Annotated[bool, typer.Option("--reset", help="Forget what was chosen, and stopped runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def tune(
    docs: Docs = None,
    core: Core = None,
    ca: Ca = None,
    insecure: Insecure = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
    questions: Questions = None,
    questions_limit: Limit = 40,
    model: Model = None,
    user_model: UserFolder = None,
    steps: Steps = None,
    max_tokens: MaxTokens = 24,
    seed: Seed = None,
    timeout: Timeout = None,
    yes: Yes = False,
    show: Show = False,
    reset: Reset = False,
    as_json: AsJson = False,
) -> None:
    """Choose λ and α for your own documents; `ask` then uses them with the same two models.

    Compares λ 0, 0.1 … 0.5 and 1 with α 0 and 1. Says what will cross and asks before it starts. A stopped run goes on.

    What is not given is as set by a variable SLINGSHOT_… or in config.toml (user-agent config), else by default.
    """
    if reset or show:
        _reset() if reset else _show(as_json)
        return
    from rich.console import Console

    from user_agent.answering.service import new_id
    from user_agent.config import config_with
    from user_agent.line.line import credentials_of
    from user_agent.store.ledger import tracing
    from user_agent.stores import open_stores
    from user_agent.tuning.command import TuneOptions, run_tune

    of_line = {"core": core, "ca": ca, "client_certificate": client_certificate, "client_key": client_key}
    config = config_with(**of_line, insecure=insecure, model=model, user_model=user_model, steps=steps, timeout=timeout)
    options = TuneOptions(
        docs=tuple(docs or ()),
        questions=questions,
        core=config.core or "",
        model=config.model,
        user_model=config.user_model,
        questions_limit=questions_limit,
        steps=config.steps,
        max_tokens=max_tokens,
        seed=seed,
        timeout_s=config.timeout,
        is_confirmed=yes,
        credentials=credentials_of(config),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with open_stores(config) as stores, tracing(new_id("tune")):
        choice, file = run_tune(options, console, stores.ledger)
    if as_json:
        typer.echo(json.dumps(asdict(choice), ensure_ascii=False))
    else:
        _print(choice)
    typer.echo(f"saved in {file}; `user-agent ask` uses it where λ and α are not given", err=True)


def _reset() -> None:
    from user_agent.store.tuned import config_folder, forget_choices

    deleted = forget_choices()
    typer.echo(f"deleted {deleted} files in {config_folder()}" if deleted else "nothing was saved", err=True)


def _show(as_json: bool) -> None:
    from user_agent.store.tuned import saved_choices

    choices = saved_choices()
    if as_json:
        typer.echo(json.dumps([asdict(choice) for choice in choices], ensure_ascii=False))
    elif not choices:
        typer.echo("nothing is tuned yet: `user-agent tune --docs FOLDER --core HOST:PORT` does it", err=True)
    else:
        for choice in choices:
            _print(choice)


def _print(choice: Choice) -> None:
    from rich.console import Console

    from user_agent.tuning.report import curve, heading

    console = Console(highlight=False, soft_wrap=True)
    console.print(heading(choice), markup=False)
    console.print(curve(choice))
