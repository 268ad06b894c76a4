"""`user-agent docs`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssd2.cli.help import App, examples
from user_agent.commands.reading import check_json, checked, print_check
from user_agent.commands.setting_options import with_settings
from user_agent.config import AgentConfig

if TYPE_CHECKING:
    from user_agent.documents.collection import Collection
    from user_agent.documents.store import Document
    from user_agent.documents.sync import Progress
    from user_agent.store.encryption_key import StoreKey

docs = App(
    help="Manage documents on this device: link folders, see which files were read, search. Text is stored encrypted.",
)

LINK_EXAMPLES = examples(
    "user-agent docs link ~/notes ~/letters/contract.pdf",
    "user-agent docs link ~/notes --json",
)
LIST_EXAMPLES = examples("user-agent docs list", "user-agent docs list --state failed")
STATUS_EXAMPLES = examples("user-agent docs status")
REMOVE_EXAMPLES = examples(
    "user-agent docs remove ~/notes   (the link with its documents; the files stay)",
    "user-agent docs remove 17   (an upload, by its id in `docs list`)",
)
SYNC_EXAMPLES = examples("user-agent docs sync", "user-agent docs sync --retry-failed")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@docs.command(epilog=LINK_EXAMPLES)
@with_settings("check_reading", "pair", "user_model", "system_prompt", "device", "precision", "data_dir")
def link(
    config: AgentConfig,
    paths: Annotated[list[Path], typer.Argument(help="Folders (read with all subfolders) or documents.")],
    as_json: AsJson = False,
) -> None:
    """Link folders or documents, and read their contents.

    Afterwards the user model answers a few questions made from them, in seconds and without sending anything, and the
    command says whether it can read them.
    """
    with _held_collection(config) as library:
        links = [library.link(path) for path in paths]
        done = _synced(library, retry_failed=False)
        found = checked(config, library, {link.id for link in links})
        _print_sync(done, as_json, links=list(map(asdict, links)), reading=check_json(found))
        if found and not as_json:
            print_check(found, config)


@docs.command(epilog=SYNC_EXAMPLES)
@with_settings("data_dir")
def sync(
    config: AgentConfig,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Read failed files and uploads again, even if unchanged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read new and changed files of the linked folders, and forget deleted ones."""
    with _held_collection(config) as library:
        _print_sync(_synced(library, retry_failed=retry_failed), as_json, links=[])


@docs.command(epilog=REMOVE_EXAMPLES)
@with_settings("data_dir")
def remove(
    config: AgentConfig,
    target: Annotated[str, typer.Argument(help="Path of a link, or id of an upload.", metavar="PATH|ID")],
    answers: Annotated[
        bool, typer.Option("--answers", help="Also delete the saved answers for which something of it was read.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a link with its documents, or an upload. Your files stay as they are."""
    from ssd2.errors import InvalidParameter
    from user_agent.stores import forget_quotes, open_stores

    with _held_collection(config) as library:
        uploads = {str(document.id): document.path for document in library.documents()}
        linked = {str(link.path): link.id for link in library.links()}
        path = str(Path(target).expanduser().resolve())
        if path in linked:
            library.unlink(linked[path])
        elif target.isdecimal():
            library.remove(int(target))
        else:
            raise InvalidParameter(f"{path} is not a linked folder; `user-agent docs status` lists the links")
    if answers:
        with open_stores(config) as stores:
            forget_quotes(stores, Path(path) if path in linked else uploads[target])
    _out(as_json, {"removed": target}, f"removed {target}")


@docs.command("list", epilog=LIST_EXAMPLES)
@with_settings("data_dir")
def list_documents(
    config: AgentConfig,
    state: Annotated[
        Literal["indexed", "failed", "skipped"] | None,
        typer.Option(help="List only documents in this state.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every file found, with the reason for each that could not be read."""
    with opened_collection(config) as (library, _):
        found = [document for document in library.documents() if state in (None, document.state)]
    if as_json:
        print_json({"documents": [asdict(document) for document in found]})
        return
    rows = ((str(d.id), str(d.path), d.state, str(d.passages) if d.state == "indexed" else "", _why(d)) for d in found)
    print_table(("id", "document", "state", "passages", "why"), rows)


def _why(document: Document) -> str:
    """Say what is to be known of a document: why it is not read, or that it is there twice."""
    return document.reason or (f"same file as {document.copy_of}" if document.copy_of else "")


@docs.command(epilog=STATUS_EXAMPLES)
@with_settings("data_dir")
def status(config: AgentConfig, as_json: AsJson = False) -> None:
    """Show the links, the number of documents, and where the encryption key is."""
    with opened_collection(config) as (library, key):
        links, counts = library.links(), Counter(document.state for document in library.documents())
    if as_json:
        print_json({"links": [asdict(link) for link in links], "key": key.source, **_states(counts)})
        return
    print_table(("link", "indexed", "since"), ((str(k.path), str(k.documents), k.linked_at) for k in links))
    told = ", ".join(f"{number} {state}" for state, number in _states(counts).items())
    typer.echo(f"{told}; encrypted with a key from: {key.source}")


@contextmanager
def opened_collection(config: AgentConfig) -> Iterator[tuple[Collection, StoreKey]]:
    """Open the documents to read from them, also while an agent has the folder."""
    from ssd2.models.embeddings import MULTILINGUAL_E5
    from user_agent.documents.collection import Collection
    from user_agent.store.data_folder import make_data_folder
    from user_agent.store.encryption_key import store_key
    from user_agent.store.tuned import config_folder

    make_data_folder(config.data_dir)
    key = store_key(config_folder(), config.passphrase.get_secret_value() if config.passphrase else None)
    library = Collection(config.data_dir, key, MULTILINGUAL_E5.path)
    try:
        yield library, key
    finally:
        library.close()


@contextmanager
def _held_collection(config: AgentConfig) -> Iterator[Collection]:
    """Open the documents to change them; refused while an agent has the folder, which does that itself."""
    from user_agent.store.data_folder import held_data_folder

    with held_data_folder(config.data_dir), opened_collection(config) as (library, _):
        yield library


@dataclass(frozen=True)
class _Synced:
    """Result of a sync.

    Attributes:
        done: its end.
        documents: that there are now.
        before: reasons of those that there were, by path.
    """

    done: Progress
    documents: list[Document]
    before: dict[Path, str]


def _synced(library: Collection, *, retry_failed: bool) -> _Synced:
    """Sync under a progress bar."""
    from user_agent.documents.extraction import exposure_warning

    if exposure := library.exposure():
        typer.echo(f"user-agent: warning: {exposure_warning(exposure)}", err=True)
    before = {document.path: document.reason for document in library.documents()}
    done = _with_bar(library, retry_failed=retry_failed)
    return _Synced(done, library.documents(), before)


def _print_sync(synced: _Synced, as_json: bool, **more: Any) -> None:
    """Print what was read, and what was not with its reason.

    Args:
        synced: by a sync.
        as_json: as one JSON object.
        **more: that stands in it too.
    """
    done, documents = synced.done, synced.documents
    failed = [document for document in documents if document.state == "failed"]
    if as_json:
        figures = {key: value for key, value in asdict(done).items() if key != "current"}
        print_json({**more, **figures, "failed_documents": list(map(asdict, failed))})
        return
    for problem in done.problems:
        typer.echo(f"user-agent: {_safe(problem)}", err=True)
    for document in documents:
        if document.state != "skipped" and document.reason and synced.before.get(document.path) != document.reason:
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
