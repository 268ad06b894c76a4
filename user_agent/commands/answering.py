"""An agent in the terminal: its parts, opened for one command, and its answers as they are printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import typer
from rich.console import Console

from ssd2.models.control import Control
from ssd2.models.tokenizer import Tokenizer
from user_agent.answering.disclosure import Disclosure, disclosure
from user_agent.answering.request import AnswerRequest
from user_agent.answering.service import Answered, Answering, Search, check
from user_agent.answering.told import told_with
from user_agent.answering.traces import Traces
from user_agent.answering.user_model import UserModel
from user_agent.commands.render import cut_off, disagreements, marked, remarks, summary, taken
from user_agent.commands.watching import TerminalObserver
from user_agent.config import AgentConfig
from user_agent.line.line import CoreLine
from user_agent.line.own_core import exit_on_sigterm
from user_agent.store.printable import printable
from user_agent.stores import Stores

Steering: TypeAlias = Callable[[Tokenizer], Control | None]


@asynccontextmanager
async def opened_answering(
    config: AgentConfig, stores: Stores, search: Search | None = None, steering: Steering = lambda _: None
) -> AsyncIterator[Answering]:
    """Open the user model and the line to the core; a core of its own ends on leaving.

    Args:
        config: of the agent.
        stores: with the ledger that all messages are entered in.
        search: finds passages; None searches the linked folders.
        steering: makes the control of all answers.

    Raises:
        SlingshotError: if a part cannot be opened.
    """
    exit_on_sigterm()
    config.check_pair()
    line = CoreLine(stores.ledger)
    try:
        user_model = await asyncio.to_thread(UserModel.configured, config, with_weights=config.lambda_user != 0)
        control = steering(user_model.tokenizer)
        check(config, user_model)
        await line.connect(config.line, config.pair)
        if line.own_title:
            typer.echo(f"user-agent: core {line.address}, {line.own_title}, started on this machine", err=True)
        elif not line.address and config.lambda_user is None:
            typer.echo(f"user-agent: {alone(config.pair)}", err=True)
        typer.echo(f"user-agent: {_disclosed(config, line, user_model).before}", err=True)
        found_by = search or stores.documents.search
        yield Answering(config, user_model, line.client, found_by, stores.crossed, Traces(), control, stores.answers)
    finally:
        await line.close()


async def watched_answer(answering: Answering, request: AnswerRequest, trace: str, *, watch: bool) -> Answered:
    """Answer one question while the terminal shows how the answer comes about."""
    with TerminalObserver(answering.user_model.tokenizer, watch=watch) as observer:
        return await answering.start(request, trace, observer)


def print_answer(answered: Answered) -> None:
    """Print the answer to stdout, and on stderr its cost and what did not fit."""
    Console(highlight=False).print(marked(answered.tokens), soft_wrap=True)
    console = Console(stderr=True, highlight=False, style="dim")
    console.print(summary(answered.answer), markup=False, emoji=False, soft_wrap=True)
    for number, passage in enumerate(answered.question.passages):
        place = f"{passage.place}{', in part' if passage.is_cut else ''}"
        console.print(f"  {printable(place)}  {printable(passage.told)}", markup=False, emoji=False, soft_wrap=True)
        if pieces := taken(answered, number):
            console.print(f"    in the answer: {printable(pieces)}", markup=False, emoji=False, soft_wrap=True)
    if told := told_with(answered):
        console.print(printable(told["says"]), markup=False, emoji=False, soft_wrap=True)
    for line in disagreements(answered):
        console.print(line, markup=False, emoji=False, soft_wrap=True, style="not dim bold")
    for remark in [*remarks(answered.question), *cut_off(answered)]:
        console.print(remark, markup=False, emoji=False, soft_wrap=True)


def _disclosed(config: AgentConfig, line: CoreLine, user_model: UserModel) -> Disclosure:
    return disclosure(
        config,
        line.address,
        is_own=line.own_title is not None,
        is_encrypted=config.ca is not None,
        takes_conversations=user_model.tokenizer.takes_conversations,
    )


def alone(pair: str) -> str:
    """Say why no core is asked though nobody set λ to 1."""
    return f"no core is asked: with {pair} the user model does as well by itself (λ 1, as measured); nothing is sent"


def print_tuned(answered: Answered) -> None:
    """Say on stderr where λ and α come from, if either was left open and tuned."""
    if answered.tuned:
        typer.echo(
            f"user-agent: {answered.question.collaboration.label}: values not given were tuned on "
            f"{answered.tuned.tuned_on} for these two models (user-agent tune --show)",
            err=True,
        )
