"""`user-agent ledger`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd2.cli.help import App, Group, examples
from ssd2.errors import InvalidParameter
from user_agent.commands.setting_options import with_settings
from user_agent.config import AgentConfig
from user_agent.store.owner_only import owner_only

if TYPE_CHECKING:
    from user_agent.store.ledger import Entry, Ledger


class _Ledger(Group):
    default = "answers"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any word, list the answers."""
        return super().parse_args(ctx, args or [self.default])


ledger = App(
    cls=_Ledger,
    no_args_is_help=False,
    help="Show what left this device and what came back: every message to and from a core, in an append-only ledger. "
    "Without a command it lists answers and what the provider knows from each. "
    "Entries removed at its end can be detected only with a hash that you keep elsewhere.",
)

ANSWERS_EXAMPLES = examples("user-agent ledger", "user-agent ledger --limit 5 --json")
SHOW_EXAMPLES = examples(
    "user-agent ledger show",
    "user-agent ledger show 42   (the content of that message)",
    "user-agent ledger show --trace 0b9c41 --json",
)
VERIFY_EXAMPLES = examples("user-agent ledger verify", 'user-agent ledger verify && echo "consistent"')
EXPORT_EXAMPLES = examples("user-agent ledger export ledger.jsonl")


@contextmanager
def open_ledger(config: AgentConfig) -> Iterator[Ledger]:
    """Open the agent's ledger, also while an agent writes it.

    Raises:
        StoreError: if it cannot be opened or read.
    """
    from user_agent.store.database import reported
    from user_agent.stores import LEDGER, open_stores

    with reported(config.data_dir / LEDGER), open_stores(config) as stores:
        yield stores.ledger


@ledger.command(epilog=ANSWERS_EXAMPLES)
@with_settings("data_dir")
def answers(
    config: AgentConfig,
    limit: Annotated[int, typer.Option(min=1, help="Number of latest answers to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the latest answers that sent something: what you asked, and what the provider now knows."""
    from user_agent.answering.told import told_by
    from user_agent.store.database import reported
    from user_agent.stores import LEDGER, open_stores

    with reported(config.data_dir / LEDGER), open_stores(config) as stores:
        found = stores.ledger.answers(limit)
        records = stores.answers.of(one.trace for one in found)
        outside = stores.ledger.totals("")
    told = [told_by(one, records.get(one.trace)) for one in found]
    if as_json:
        typer.echo(json.dumps({"answers": [_plain(one) for one in told], "outside": asdict(outside)}))
        return
    for one in reversed(told):
        _print_answer(one)
    if not told:
        typer.echo("Nothing has been sent for any answer.")
    if outside.up.messages:
        typer.echo(f"outside of answers: {outside.up.messages} messages, {outside.up.wire_bytes} bytes sent", err=True)


@ledger.command(epilog=SHOW_EXAMPLES)
@with_settings("data_dir")
def show(
    config: AgentConfig,
    seq: Annotated[int | None, typer.Argument(help="Number of the entry to show, with its message.")] = None,
    trace: Annotated[str | None, typer.Option(help="List only entries of the answer with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of latest entries to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the messages that crossed, or show one of them."""
    with open_ledger(config) as opened:
        if seq is not None:
            _print_one(opened.entry(seq), as_json=as_json)
            return
        entries, totals = opened.latest(limit, trace), opened.totals()
    if as_json:
        typer.echo(json.dumps({"entries": [entry.as_dict() for entry in entries], "totals": asdict(totals)}))
        return
    _print_table(entries)
    typer.echo(
        f"total: {totals.up.messages} messages, {totals.up.wire_bytes} bytes sent; {totals.down.messages} messages, "
        f"{totals.down.wire_bytes} bytes received",
        err=True,
    )


@ledger.command(epilog=VERIFY_EXAMPLES)
@with_settings("data_dir")
def verify(config: AgentConfig) -> None:
    """Check that no entry was changed, inserted or removed; exit code 1 if one was.

    Entries removed at the end are detected only with the hash that this command prints: keep it elsewhere, with the
    number of entries. As long as the entry with that number has that hash, no entry up to it was changed.
    """
    with open_ledger(config) as opened:
        found = opened.verify()
    if found.broken_seq is not None:
        typer.echo(f"user-agent: error: the ledger is broken at entry {found.broken_seq}: {found.reason}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.entries} entries, hash chain consistent; hash of the last entry: {found.chain}")


@ledger.command(epilog=EXPORT_EXAMPLES)
@with_settings("data_dir")
def export(
    config: AgentConfig,
    file: Annotated[Path, typer.Argument(help="File to write, one JSON line per entry.")],
) -> None:
    """Write all entries, including sent messages, to a file that only its owner can read."""
    with open_ledger(config) as opened:
        lines = opened.export()
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as written:
                owner_only(written.fileno())
                written.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise InvalidParameter(f"cannot write {file}: {error.strerror}; choose another file") from error


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "words": [asdict(one) for one in told["words"]], "totals": asdict(told["totals"])}


def _print_answer(told: dict[str, Any]) -> None:
    """Print one answer: when, what was asked, what is known now, and where to read the messages."""
    from user_agent.store.printable import printable

    asked = f"You asked “{told['question']}”" if told["question"] else "You asked a question"
    totals = told["totals"]
    typer.echo(printable(f"{told['time'][:19]}  {asked}. {told['says']}"))
    typer.echo(
        f"    {totals.up.messages} messages, {totals.up.wire_bytes} bytes sent, {totals.down.wire_bytes} received; "
        f"user-agent ledger show --trace {told['trace']}"
    )


def _print_one(entry: Entry, *, as_json: bool) -> None:
    message = entry.message
    shown = {**entry.as_dict(), "message": asdict(message) if message else None}
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        if name not in ("message", "payload"):
            typer.echo(f"{name:14}{value}")
    typer.echo(f"says: {message.kind}" if message else "received from the core; only its size and hash are stored")
    for name, value in (message.fields if message else {}).items():
        typer.echo(f"  {name}: {json.dumps(value)}")


def _print_table(entries: list[Entry]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("seq", "time", "way", "what", "bytes", "core", "answer", box=box.SIMPLE)
    for entry in entries:
        what = entry.message.kind if entry.message else entry.rpc
        table.add_row(
            *(str(entry.seq), entry.time[:19], entry.direction, what),
            *(str(entry.wire_bytes), entry.destination, entry.trace),
        )
    Console(highlight=False).print(table)
