"""`user-agent chat`: one question after the other, in the terminal. Nothing heavy is imported before it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import examples
from user_agent.commands.ask import NoLog, Watch
from user_agent.commands.remedies import with_remedy
from user_agent.commands.setting_options import ANSWER, LINE, with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from ssd2.models.chat import Message
    from user_agent.answering.service import Answering
    from user_agent.store.history import History

EXAMPLES = examples(
    "user-agent chat   (the demo's two models, everything on this machine)",
    "user-agent chat --core core.example.org:50051 --ca provider.pem --watch",
)

STANDS_ALONE = "Each question stands alone: the models do not see the earlier ones."
GOES_ON = "The models see the earlier questions and answers."
ENDS = "An empty line or Ctrl-D ends the chat."


@with_settings(*ANSWER, *LINE, "user_model", "device", "precision", "data_dir")
def chat(
    config: AgentConfig,
    watch: Watch = False,
    no_log: NoLog = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="<id>", help="Go on with a saved chat, by (the beginning of) its id.", show_default=False),
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Ask each question by itself: earlier ones are not sent with it.")
    ] = False,
) -> None:
    """Ask questions about the linked documents (`user-agent docs link`); some models also see earlier ones."""
    from user_agent.commands.answering import opened_answering
    from user_agent.stores import open_stores

    async def talk() -> None:
        with open_stores(config) as stores:
            async with opened_answering(config, stores) as answering:
                said, kept = _resumed(stores.history, resume) if resume else ([], None)
                history = None if no_log else stores.history
                await _conversation(answering, history, said, kept, watch=watch, is_alone=no_history)

    asyncio.run(talk())


def _resumed(history: History, beginning: str) -> tuple[list[Message], str]:
    """Print a saved chat; return what was said in it, of several answers the last one, and its id."""
    from ssd2.models.chat import Message
    from user_agent.commands.chats import chat_named
    from user_agent.store.printable import printable

    found, said = chat_named(history, beginning), list[Message]()
    for message in reversed(history.messages(found.id, limit=-1)):
        if message.data.get("is_core_alone"):
            continue
        if said and said[-1].role == message.role == "assistant":
            said.pop()
        said.append(Message(message.role, message.text))
    for one in said:
        typer.echo(printable(f"> {one.content}" if one.role == "user" else one.content))
    return said, found.id


async def _conversation(
    answering: Answering,
    history: History | None,
    said: Sequence[Message] = (),
    kept: str | None = None,
    *,
    watch: bool,
    is_alone: bool = False,
) -> None:
    """Answer until an empty line, the end of the input, or Ctrl-C.

    Args:
        answering: answers.
        history: where it is saved; None for nowhere.
        said: earlier messages.
        kept: id of the saved chat that goes on; None begins another.
        watch: whether every timestep is shown.
        is_alone: whether each question stands alone.
    """
    from ssd2.errors import SlingshotError
    from ssd2.models.chat import Message
    from user_agent.answering.history_entry import keep_answer
    from user_agent.answering.service import new_id
    from user_agent.commands.answering import print_answer, print_tuned, watched_answer

    said = list(said)
    goes_on = answering.user_model.tokenizer.takes_conversations and not is_alone
    typer.echo(f"{GOES_ON if goes_on else STANDS_ALONE} {ENDS}", err=True)
    while question := (await asyncio.to_thread(_line)).strip():
        trace = new_id("chat")
        try:
            request = answering.request(question, history=tuple(said) if goes_on else ())
            answered = await watched_answer(answering, request, trace, watch=watch)
        except SlingshotError as error:
            typer.echo(f"user-agent: error: {with_remedy(error)}", err=True)
            continue
        print_tuned(answered)
        print_answer(answered)
        said += [Message("user", question), Message("assistant", answered.text)]
        if history:
            kept = keep_answer(history, answered, trace, kept)


def _line() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""
