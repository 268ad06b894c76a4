"""`user-agent chat`: one question after the other, in the terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from user_agent.commands.options import Ca, ClientCertificate, ClientKey, Insecure
from user_agent.commands.remedies import with_remedy

if TYPE_CHECKING:
    from user_agent.answering.service import Answered, Answering
    from user_agent.store.history import History

CHAT_EXAMPLES = """
Examples:

  user-agent chat                                    (the demo's two models, everything on this machine)

  user-agent chat --core core.example.org:50051 --ca provider.pem --watch

Each question stands alone: the models do not see the earlier ones. An empty line or Ctrl-D ends the chat.
"""

STANDS_ALONE = (
    "Each question stands alone: the models do not see the earlier ones. An empty line or Ctrl-D ends the chat."
)


def chat(
    core: Annotated[
        str | None, typer.Option(help="HOST:PORT of the core server; none: the demo's, on this machine.")
    ] = None,
    ca: Ca = None,
    insecure: Insecure = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
    lambda_user: Annotated[
        float | None, typer.Option(help="Weight of the user model; default: as tuned, else 0.3.", show_default=False)
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="How much the documents are stressed; default: as tuned.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show every timestep while it is denoised.")] = False,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep nothing of it among the conversations.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of what the agent keeps; default: ~/.local/share/slingshot.", show_default=False),
    ] = None,
) -> None:
    """Ask one question after the other, each on its own, with your linked documents (user-agent docs link)."""
    from user_agent.answering.user_model import UserModel
    from user_agent.config import load_config
    from user_agent.line.demo_core import exit_on_sigterm
    from user_agent.line.line import CoreLine
    from user_agent.stores import open_stores

    line_options = {"core": core, "ca": ca, "client_certificate": client_certificate, "client_key": client_key}
    config = load_config(**line_options, insecure=insecure, lambda_user=lambda_user, alpha=alpha, data_dir=data_dir)

    exit_on_sigterm()

    async def talk() -> None:
        from user_agent.answering.service import Answering
        from user_agent.answering.traces import Traces

        with open_stores(config) as stores:
            line = CoreLine(stores.ledger)
            try:
                user_model = await asyncio.to_thread(UserModel.load, config.user_model, with_weights=True)
                await line.connect(config)
                answering = Answering(config, user_model, line.client, stores.documents.search, Traces())
                await _conversation(answering, None if no_log else stores.history, watch=watch)
            finally:
                await line.close()

    asyncio.run(talk())


async def _conversation(answering: Answering, history: History | None, *, watch: bool) -> None:
    """Until an empty line, the end of the input, or Ctrl-C."""
    from ssd2.errors import SlingshotError
    from user_agent.answering.history_entry import keep_answer

    typer.echo(STANDS_ALONE, err=True)
    kept: str | None = None
    while question := (await asyncio.to_thread(_line)).strip():
        try:
            answered, trace_id = await _answer(answering, question, watch=watch)
        except SlingshotError as error:
            typer.echo(f"user-agent: error: {with_remedy(error)}", err=True)
            continue
        if history:
            kept = keep_answer(history, answered.question, answered.answer, trace_id, kept)


def _line() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


async def _answer(answering: Answering, question: str, *, watch: bool) -> tuple[Answered, str]:
    from rich.console import Console

    from user_agent.answering.service import Asked, new_id
    from user_agent.commands.render import marked, remarks, summary
    from user_agent.commands.watching import TerminalObserver

    trace_id = new_id("chat")
    with TerminalObserver(answering.user_model.tokenizer, watch=watch) as observer:
        answered = await answering.start(Asked(question), trace_id, observer)
    Console(highlight=False).print(marked(answered.answer), soft_wrap=True)
    console = Console(stderr=True, highlight=False, style="dim")
    for line in (summary(answered.answer), *remarks(answered.question)):
        console.print(line, markup=False, emoji=False, soft_wrap=True)
    return answered, trace_id
