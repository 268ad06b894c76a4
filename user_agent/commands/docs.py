"""`user-agent docs`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from user_agent.documents.collection import Collection
    from user_agent.documents.store import Document
    from user_agent.documents.sync import Progress
    from user_agent.store.encryption_key import StoreKey

docs = typer.Typer(
    no_args_is_help=True,
    help="Your documents, kept on this device: link folders, see what could be read, search. Text is kept encrypted.",
)

LINK_EXAMPLES = """
Examples:

  user-agent docs link ~/notes ~/letters/contract.pdf

  user-agent docs link ~/notes --json
"""
LIST_EXAMPLES = """
Examples:

  user-agent docs list

  user-agent docs list --state failed
"""
STATUS_EXAMPLES = """
Example:

  user-agent docs status
"""
REMOVE_EXAMPLES = """
Examples:

  user-agent docs remove ~/notes   (the link with its documents; the files stay)

  user-agent docs remove 17   (an upload, by its number in `docs list`)
"""
SYNC_EXAMPLES = """
Examples:

  user-agent docs sync

  user-agent docs sync --retry-failed
"""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SLINGSHOT_DATA_DIR", help="Folder of what the agent keeps; default: ~/.local/share/slingshot."
    ),
]


@docs.command(epilog=LINK_EXAMPLES)
def link(
    paths: Annotated[list[Path], typer.Argument(help="Folders, with all that is below them, or documents.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep folders or documents, and read what is in them."""
    with _held_collection(data_dir) as library:
        links = [library.link(path) for path in paths]
        _sync(library, as_json, retry_failed=False, links=links)


@docs.command(epilog=SYNC_EXAMPLES)
def sync(
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Read unchanged files and uploads that failed once more.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Read what is new or changed in the linked folders, and forget what is gone."""
    with _held_collection(data_dir) as library:
        _sync(library, as_json, retry_failed=retry_failed)


@docs.command(epilog=REMOVE_EXAMPLES)
def remove(
    target: Annotated[str, typer.Argument(help="Path of a link, or number of an upload.", metavar="PATH|ID")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Forget a link with its documents, or an upload. No file of yours is touched."""
    from ssd2.errors import InvalidParameter

    with _held_collection(data_dir) as library:
        linked = {str(link.path): link.id for link in library.links()}
        path = str(Path(target).expanduser().resolve())
        if path in linked:
            library.unlink(linked[path])
        elif target.isdecimal():
            library.remove(int(target))
        else:
            raise InvalidParameter(f"{path} is not a linked folder; `user-agent docs status` lists the links")
    _out(as_json, {"removed": target}, f"removed {target}")


@docs.command("list", epilog=LIST_EXAMPLES)
def list_documents(
    state: Annotated[
        Literal["indexed", "failed", "skipped"] | None, typer.Option(help="Only those.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Every file that was found: what can be searched, what could not be read, and what is no document."""
    with opened_collection(data_dir) as (library, _):
        found = [document for document in library.documents() if state in (None, document.state)]
    if as_json:
        print_json({"documents": [asdict(document) for document in found]})
        return
    rows = ((str(d.id), str(d.path), d.state, str(d.passages) if d.state == "indexed" else "", d.reason) for d in found)
    print_table(("id", "document", "state", "passages", "why"), rows)


@docs.command(epilog=STATUS_EXAMPLES)
def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The links, how many documents there are, and where the key is."""
    with opened_collection(data_dir) as (library, key):
        links, counts = library.links(), Counter(document.state for document in library.documents())
    if as_json:
        print_json({"links": [asdict(link) for link in links], "key": key.source, **_states(counts)})
        return
    print_table(("link", "indexed", "since"), ((str(k.path), str(k.documents), k.linked_at) for k in links))
    told = ", ".join(f"{number} {state}" for state, number in _states(counts).items())
    typer.echo(f"{told}; encrypted with a key from: {key.source}")


@contextmanager
def opened_collection(data_dir: Path | None) -> Iterator[tuple[Collection, StoreKey]]:
    """To read from, also while an agent has the folder."""
    from user_agent.documents.collection import Collection
    from user_agent.store.data_folder import default_data_folder, make_data_folder
    from user_agent.store.encryption_key import store_key
    from user_agent.store.tuned import config_folder

    folder = data_dir or default_data_folder()
    make_data_folder(folder)
    key = store_key(config_folder(), os.environ.get("SLINGSHOT_PASSPHRASE"))
    library = Collection(folder, key)
    try:
        yield library, key
    finally:
        library.close()


@contextmanager
def _held_collection(data_dir: Path | None) -> Iterator[Collection]:
    """To write to; an agent that has the folder does that itself."""
    from user_agent.store.data_folder import default_data_folder, held_data_folder

    with held_data_folder(data_dir or default_data_folder()), opened_collection(data_dir) as (library, _):
        yield library


def _sync(library: Collection, as_json: bool, *, retry_failed: bool, links: Iterable[Any] = ()) -> None:
    """Sync under a progress bar; then what was read, and what was not with its reason."""
    from user_agent.documents.extraction import exposure_warning

    if exposure := library.exposure():
        typer.echo(f"user-agent: warning: {exposure_warning(exposure)}", err=True)
    before = {document.path: document.reason for document in library.documents()}
    done = _with_bar(library, retry_failed=retry_failed)
    documents = library.documents()
    failed = [document for document in documents if document.state == "failed"]
    if as_json:
        figures = {key: value for key, value in asdict(done).items() if key != "current"}
        print_json(
            {"links": [asdict(link) for link in links], **figures, "failed_documents": list(map(asdict, failed))}
        )
        return
    for problem in done.problems:
        typer.echo(f"user-agent: {_safe(problem)}", err=True)
    for document in documents:
        if document.state != "skipped" and document.reason and before.get(document.path) != document.reason:
            typer.echo(f"user-agent: {_safe(f'{document.path} {document.reason}')}", err=True)
    typer.echo(_summary(done, documents))


def _with_bar(library: Collection, *, retry_failed: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    name = TextColumn("{task.description}", markup=False)
    with Bars(*columns, name, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=None, rate="")

        def show(progress: Progress) -> None:
            rate = f"{progress.documents_per_s:.0f} documents/s"
            bars.update(
                bar, total=progress.total, completed=progress.done, description=_safe(progress.current), rate=rate
            )

        return library.sync(show, retry_failed=retry_failed)


def _summary(done: Progress, documents: list[Document]) -> str:
    kinds = Counter(document.path.suffix or document.path.name for document in documents if document.state == "skipped")
    skipped = ", ".join(f"{number} {_safe(kind)}" for kind, number in kinds.most_common(5))
    return (
        f"{done.indexed} read, {done.unchanged} unchanged, {done.removed} gone, {done.failed} failed, "
        f"{done.skipped} skipped{f' ({skipped})' if skipped else ''}; see them with `user-agent docs list`"
    )


def _states(counts: Counter[Any]) -> dict[str, int]:
    return {state: counts[state] for state in ("indexed", "failed", "skipped")}


def _out(as_json: bool, values: dict[str, Any], text: str) -> None:
    print_json(values) if as_json else typer.echo(_safe(text))


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(values, ensure_ascii=False, default=str))


def print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows under their header; a document's text is neither markup nor control sequences."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_safe(cell)) for cell in row))  # as Text: a document is no markup
    Console(highlight=False).print(table)


def _safe(text: str) -> str:
    from user_agent.store.printable import printable

    return printable(text)
