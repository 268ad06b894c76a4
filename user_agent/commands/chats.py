"""`user-agent chats`: saved chats. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ssd2.cli.help import App, examples
from ssd2.errors import InvalidParameter, NotFound
from user_agent.commands.setting_options import with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from user_agent.store.history import Conversation, History
    from user_agent.stores import Stores

chats = App(help="List, search, export and delete the chats saved on this device.")

LIST_EXAMPLES = examples("user-agent chats list", "user-agent chats list --limit 5 --json")
SHOW_EXAMPLES = examples("user-agent chats show 5f0e", "user-agent chat --resume 5f0e   (to go on with it)")
SEARCH_EXAMPLES = examples('user-agent chats search "spare key"')
EXPORT_EXAMPLES = examples("user-agent chats export 5f0e chat.md", "user-agent chats export 5f0e chat.json --form json")
DELETE_EXAMPLES = examples("user-agent chats delete 5f0e")

Id = Annotated[str, typer.Argument(help="Id of the chat, or the beginning of it.", metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _opened(config: AgentConfig) -> Iterator[Stores]:
    from user_agent.store.database import reported
    from user_agent.stores import HISTORY, open_stores

    with reported(config.data_dir / HISTORY), open_stores(config) as stores:
        yield stores


def chat_named(history: History, beginning: str) -> Conversation:
    """Return the chat whose id begins so.

    Raises:
        NotFound: if there is none.
        InvalidParameter: if there are several.
    """
    found = [one for one in history.conversations(limit=-1) if one.id.startswith(beginning)]
    if not found:
        raise NotFound(f"there is no chat {beginning!r}; `user-agent chats list` has their ids")
    if len(found) > 1:
        raise InvalidParameter(f"{len(found)} chats have an id that begins with {beginning!r}; write more of it")
    return found[0]


@chats.command("list", epilog=LIST_EXAMPLES)
@with_settings("data_dir")
def list_chats(
    config: AgentConfig,
    limit: Annotated[int, typer.Option(min=1, help="Number of latest chats to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the chats, the latest first."""
    with _opened(config) as stores:
        found = stores.history.conversations(limit=limit)
    if as_json:
        typer.echo(json.dumps({"chats": [asdict(one) for one in found]}, ensure_ascii=False))
        return
    for one in found:
        _print(one.id[:8], one.updated[:16].replace("T", " "), one.title)


@chats.command(epilog=SHOW_EXAMPLES)
@with_settings("data_dir")
def show(config: AgentConfig, chat: Id, as_json: AsJson = False) -> None:
    """Print a chat: as Markdown, or as JSON with all that is stored of it."""
    with _opened(config) as stores:
        typer.echo(_exported(stores.history, chat, "json" if as_json else "markdown"), nl=False)


@chats.command(epilog=SEARCH_EXAMPLES)
@with_settings("data_dir")
def search(
    config: AgentConfig,
    words: Annotated[str, typer.Argument(help="Words; all of them have to be in the message or title.")],
    limit: Annotated[int, typer.Option(min=1, help="Number of messages to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Search titles, questions and answers; exit code 1 if nothing is found."""
    with _opened(config) as stores:
        found = stores.history.search(words, limit)
    if as_json:
        typer.echo(json.dumps({"found": [asdict(one) for one in found]}, ensure_ascii=False))
    else:
        for one in found:
            _print(one.conversation[:8], one.role, one.text)
    if not found:
        typer.echo("user-agent: no chat has these words", err=True)
        raise typer.Exit(1)


@chats.command(epilog=EXPORT_EXAMPLES)
@with_settings("data_dir")
def export(
    config: AgentConfig,
    chat: Id,
    file: Annotated[Path, typer.Argument(help="File to write; only its owner can read it.")],
    form: Annotated[Literal["markdown", "json"], typer.Option(help="Form of the file.")] = "markdown",
) -> None:
    """Write a chat to a file. The file is not encrypted."""
    with _opened(config) as stores:
        text = _exported(stores.history, chat, form)
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as written:
            os.fchmod(written.fileno(), 0o600)  # of a file that was there
            written.write(text)
    except OSError as error:
        raise InvalidParameter(f"cannot write {file}: {error.strerror}; choose another file") from error


@chats.command(epilog=DELETE_EXAMPLES)
@with_settings("data_dir")
def delete(
    config: AgentConfig,
    chat: Id,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a chat with its answers and their quotes, overwritten on disk. The ledger keeps what was sent."""
    from user_agent.store.printable import printable
    from user_agent.stores import forget_chat

    with _opened(config) as stores:
        found = chat_named(stores.history, chat)
        if not is_sure:
            typer.confirm(f"Delete “{printable(found.title)}” for good?", abort=True, err=True)
        forget_chat(stores, found.id)
    typer.echo(f"deleted {found.id}")


def _exported(history: History, chat: str, form: Literal["markdown", "json"]) -> str:
    from user_agent.answering.chats import as_json, as_markdown

    found = chat_named(history, chat)
    messages = history.messages(found.id, limit=-1)[::-1]
    if form == "json":
        return json.dumps(as_json(found, messages), ensure_ascii=False, indent=2) + "\n"
    return as_markdown(found, messages)


def _print(*columns: str) -> None:
    from user_agent.store.printable import printable

    typer.echo("  ".join(printable(column) for column in columns))
