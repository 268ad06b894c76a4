"""`user-agent ask`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.errors import InvalidParameter
from user_agent.commands.setting_options import ADVANCED, ANSWER, LINE, Given, with_settings

if TYPE_CHECKING:
    from ssd2.models.control import Control
    from ssd2.models.tokenizer import Tokenizer
    from user_agent.answering.service import Answered, Search
    from user_agent.config import AgentConfig
    from user_agent.documents.passage import Passage
    from user_agent.stores import Stores

ASK_EXAMPLES = """
Examples:

  user-agent ask "Where did I put my spare key?" --docs ~/notes --core core.example.org:50051 --ca provider.pem

  user-agent ask "When does Fern Gallery open?"   (the demo's core, started on this machine)

  user-agent ask "When does Fern Gallery open?" --core localhost:50051 --lambda-user 0

  user-agent ask "Where did I put my spare key?" --docs ~/notes --lambda-user 1   (no connection at all)
"""

Docs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="<path>",
        help="Document or folder to search instead of the linked folders; repeatable. It is read, and not kept.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Show every timestep of every block while it is denoised.")]
NoLog = Annotated[bool, typer.Option("--no-log", help="Keep neither question nor answer among the conversations.")]


@with_settings(*ANSWER, *LINE, "user_model", "data_dir")
def ask(
    given: Given,
    question: Annotated[str, typer.Argument(help="Question for both models. It is sent to the core.")],
    docs: Docs = None,
    watch: Watch = False,
    no_log: NoLog = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    control: Annotated[
        Path | None,
        typer.Option(
            metavar="<path>",
            help="Folder of a text classifier with the models' tokenizer, which steers the answer on this device.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    control_label: Annotated[
        str, typer.Option(metavar="<text>", help="Class to steer towards, by name or number.", rich_help_panel=ADVANCED)
    ] = "",
    control_strength: Annotated[
        float, typer.Option(help="Strength of the steering; 100 to 2000 in the thesis.", rich_help_panel=ADVANCED)
    ] = 500.0,
) -> None:
    """Answer one question with both models. Only the small one reads the documents; the provider reads the answer.

    Unset options fall back to SLINGSHOT_* variables, then config.toml, then the defaults shown.
    """
    from ssd2.models.control import Control
    from user_agent.answering.history_entry import keep_answer
    from user_agent.answering.service import new_id
    from user_agent.config import load_config
    from user_agent.line.demo_core import exit_on_sigterm
    from user_agent.stores import open_stores

    if (control is None) != (not control_label):
        raise InvalidParameter("--control and --control-label go together: a classifier and one of its classes")

    def steering(tokenizer: Tokenizer) -> Control | None:
        return Control.load(control, control_label, control_strength, tokenizer) if control else None

    config, trace = load_config(**given), new_id("ask")
    exit_on_sigterm()
    with open_stores(config) as stores:
        search = _read(docs) if docs else stores.documents.search
        answered = asyncio.run(_ask(config, question, trace, stores, search, steering, watch=watch))
        if docs and answered.question.collaboration.uses_user and not answered.question.passages:
            typer.echo("user-agent: no passage of your documents matches; the answer does not use them", err=True)
        _print_json(answered) if as_json else _print(answered)
        if not no_log:
            keep_answer(stores.history, answered, trace)


def _read(docs: list[Path]) -> Search:
    """Search documents that are not linked; they are read when the first question needs them."""

    def search(question: str, ids: Sequence[int] | None) -> list[Passage]:
        from user_agent.documents.reader import read_documents
        from user_agent.documents.search import search

        if ids:
            raise InvalidParameter("--docs and the ids of linked documents exclude each other; give one of them")
        corpus = read_documents(docs)
        for line in corpus.told():
            typer.echo(f"user-agent: {line}", err=True)
        return search(corpus.passages, question)

    return search


async def _ask(
    config: AgentConfig,
    question: str,
    trace: str,
    stores: Stores,
    search: Search,
    steering: Callable[[Tokenizer], Control | None],
    *,
    watch: bool,
) -> Answered:
    """Answer one question on a line of its own."""
    from user_agent.answering.service import Answering
    from user_agent.answering.traces import Traces
    from user_agent.answering.user_model import UserModel
    from user_agent.commands.watching import TerminalObserver

    user_model = await asyncio.to_thread(UserModel.load, config.user_model, with_weights=config.lambda_user != 0)
    async with core_line(config, stores) as client:
        control = steering(user_model.tokenizer)
        answering = Answering(config, user_model, client, search, Traces(), control)
        with TerminalObserver(user_model.tokenizer, watch=watch) as observer:
            return await answering.start(answering.request(question), trace, observer)
