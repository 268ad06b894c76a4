"""`user-agent ask`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import ADVANCED, examples
from ssd2.errors import InvalidParameter
from user_agent.commands.setting_options import ANSWER, LINE, with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from ssd2.models.control import Control
    from ssd2.models.tokenizer import Tokenizer
    from user_agent.answering.service import Answered, Search
    from user_agent.commands.answering import Steering
    from user_agent.documents.passage import Passage
    from user_agent.stores import Stores

EXAMPLES = examples(
    'user-agent ask "Where did I put my spare key?" --docs ~/notes --core core.example.org:50051 --ca provider.pem',
    'user-agent ask "When is the dentist?" --docs ~/notes --pair smollm2-135m   (a public model on this machine)',
    'user-agent ask "When does Fern Tower open?"   (the demo\'s core, started on this machine)',
    'user-agent ask "When does Fern Tower open?" --core localhost:50051 --lambda-user 0',
    'user-agent ask "Where did I put my spare key?" --docs ~/notes --lambda-user 1   (no connection at all)',
)

Docs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="<path>",
        help="Document or folder to search instead of the linked folders; repeatable. It is read, but not stored.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Show every timestep of every block as it is denoised.")]
NoLog = Annotated[bool, typer.Option("--no-log", help="Do not save the question and the answer in the conversations.")]


@with_settings(*ANSWER, *LINE, "user_model", "device", "precision", "data_dir")
def ask(
    config: AgentConfig,
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
    """Answer one question with both models. Only the small one reads the documents; the provider reads the answer."""
    from user_agent.answering.history_entry import keep_answer
    from user_agent.answering.service import new_id
    from user_agent.commands.answering import print_answer, print_tuned
    from user_agent.stores import open_stores

    if (control is None) != (not control_label):
        raise InvalidParameter("--control and --control-label go together; give a classifier and one of its classes")

    def steering(tokenizer: Tokenizer) -> Control | None:
        from ssd2.models.control import Control

        return Control.load(control, control_label, control_strength, tokenizer) if control else None

    trace = new_id("ask")
    with open_stores(config) as stores:
        search = _reading(docs) if docs else stores.documents.search
        answered = asyncio.run(_ask(config, stores, search, steering, question, trace, watch=watch))
        if docs and answered.question.collaboration.uses_user and not _found(answered):
            typer.echo("user-agent: no passage in your documents matches; the answer does not use them", err=True)
        print_tuned(answered)
        _print_json(answered) if as_json else print_answer(answered)
        if not no_log:
            keep_answer(stores.history, answered, trace)


async def _ask(
    config: AgentConfig, stores: Stores, search: Search, steering: Steering, question: str, trace: str, *, watch: bool
) -> Answered:
    from user_agent.commands.answering import opened_answering, watched_answer

    async with opened_answering(config, stores, search, steering) as answering:
        return await watched_answer(answering, answering.request(question), trace, watch=watch)


def _reading(docs: list[Path]) -> Search:
    """Search documents that are not linked; they are read when the first question needs them."""

    def search(question: str, ids: Sequence[int] | None) -> list[Passage]:
        from user_agent.documents.reader import read_documents
        from user_agent.documents.search import search

        if ids:
            raise InvalidParameter("--docs and the ids of linked documents exclude each other; choose one of them")
        corpus = read_documents(docs)
        for line in corpus.problems():
            typer.echo(f"user-agent: {line}", err=True)
        return search(corpus.passages, question)

    return search


def _found(answered: Answered) -> bool:
    return bool(answered.question.passages or answered.question.left_out)


def _print_json(answered: Answered) -> None:
    from user_agent.answering.told import told_with
    from user_agent.answering.traces import conflicts_json, fit_json, passage_json

    citations = [passage_json(passage) for passage in answered.question.passages]
    answer = {**asdict(answered.answer), "text": answered.text, "conflicts": conflicts_json(answered.conflicts)}
    more = {"citations": citations, **fit_json(answered.question), "told": told_with(answered)}
    typer.echo(json.dumps({**answer, **more}, ensure_ascii=False))
