"""`user-agent ledger`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.errors import InvalidParameter

if TYPE_CHECKING:
    from user_agent.store.ledger import Entry, Ledger

ledger = typer.Typer(
    no_args_is_help=True,
    help="What left this device and what came back: every message to and from a core, in a ledger "
    "that only grows. Entries that somebody cuts off at its end are found only by a hash that you keep elsewhere.",
)

SHOW_EXAMPLES = """
Examples:

  user-agent ledger show

  user-agent ledger show 42   (what that message says)

  user-agent ledger show --trace 0b9c41 --json
"""
VERIFY_EXAMPLES = """
Examples:

  user-agent ledger verify

  user-agent ledger verify && echo "whole"
"""
EXPORT_EXAMPLES = """
Examples:

  user-agent ledger export ledger.jsonl
"""

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of what the agent keeps; default: as the agent is configured.")
]


@contextmanager
def open_ledger(data_dir: Path | None = None) -> Iterator[Ledger]:
    """The agent's ledger, also while an agent writes it.

    Args:
        data_dir: where it is; None for where the configuration says.

    Raises:
        StoreError: if it cannot be opened or read.
    """
    from user_agent.config import load_config
    from user_agent.store.database import reported
    from user_agent.stores import LEDGER, open_stores

    config = load_config(data_dir=data_dir)
    with reported(config.data_dir / LEDGER), open_stores(config) as stores:
        yield stores.ledger


@ledger.command(epilog=SHOW_EXAMPLES)
def show(
    seq: Annotated[int | None, typer.Argument(help="Number of one entry: shows what its message says.")] = None,
    trace: Annotated[str | None, typer.Option(help="Only entries of the answer with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most entries to list, the last ones.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List what crossed, or show one message."""
    with open_ledger(data_dir) as opened:
        if seq is not None:
            _print_one(opened.entry(seq), as_json=as_json)
            return
        entries, totals = opened.latest(limit, trace), opened.totals()
    if as_json:
        typer.echo(json.dumps({"entries": [entry.as_dict() for entry in entries], "totals": asdict(totals)}))
        return
    _print_table(entries)
    typer.echo(
        f"in all: {totals.up.messages} messages, {totals.up.wire_bytes} bytes sent; {totals.down.messages} messages, "
        f"{totals.down.wire_bytes} bytes received",
        err=True,
    )


@ledger.command(epilog=VERIFY_EXAMPLES)
def verify(data_dir: DataDir = None) -> None:
    """Check that no entry was changed, put in or taken out, but for ones cut off at the end; exit code 1 if one was.

    Entries cut off at the end are found only by the hash that it prints: keep it elsewhere, with its number. As long as
    the entry of that number has it, nothing up to there was changed.
    """
    with open_ledger(data_dir) as opened:
        found = opened.verify()
    if found.broken_seq is not None:
        typer.echo(f"user-agent: error: the ledger is broken at entry {found.broken_seq}: {found.reason}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.entries} entries, whole; hash of the last: {found.chain}")


@ledger.command(epilog=EXPORT_EXAMPLES)
def export(
    file: Annotated[Path, typer.Argument(help="File to write, a line of JSON for each entry.")],
    data_dir: DataDir = None,
) -> None:
    """Write all entries to a file, sent messages included; only its owner can read it."""
    with open_ledger(data_dir) as opened:
        lines = opened.export()
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as written:
                os.fchmod(written.fileno(), 0o600)  # of a file that was there
                written.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise InvalidParameter(f"cannot write {file}: {error.strerror}; choose another file") from error


def _print_one(entry: Entry, *, as_json: bool) -> None:
    message = entry.message
    shown = {**entry.as_dict(), "message": asdict(message) if message else None}
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        if name not in ("message", "payload"):
            typer.echo(f"{name:14}{value}")
    typer.echo("it came from the core: only its size and hash are kept" if message is None else f"says: {message.kind}")
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
