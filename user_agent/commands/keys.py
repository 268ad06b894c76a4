"""`user-agent keys`: keys of the REST endpoint. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ssd2.cli.help import App, examples

if TYPE_CHECKING:
    from user_agent.store.access_keys import AccessKeys

keys = App(
    help="Keys of the REST endpoint, each with its scopes. ask: answers. manage: documents, conversations, settings "
    "and keys. read-ledger: what left this device. Changes take effect on a running agent within a second."
)

CREATE_EXAMPLES = examples(
    "user-agent keys create notebook",
    "user-agent keys create backup --scope manage --scope read-ledger",
    "export OPENAI_API_KEY=$(user-agent keys create notebook --json | jq -r .key)",
)
LIST_EXAMPLES = examples("user-agent keys list", "user-agent keys list --json")
REVOKE_EXAMPLES = examples(
    "user-agent keys revoke notebook", "user-agent keys revoke page   (makes a new one at the next start)"
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _keys() -> AccessKeys:
    from user_agent.api.security import access_keys
    from user_agent.config import load_config

    return access_keys(load_config())


@keys.command(epilog=CREATE_EXAMPLES)
def create(
    name: Annotated[str, typer.Argument(help="Name of the key, to revoke it by.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="ask, manage or read-ledger; repeatable. Default: ask.", metavar="SCOPE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once: the agent stores only its fingerprint."""
    scopes = scope or ["ask"]
    key = _keys().create(name, scopes)  # type: ignore[arg-type]  # checked there
    typer.echo(json.dumps({"name": name, "scopes": scopes, "key": key}, ensure_ascii=False) if as_json else key)


@keys.command("list", epilog=LIST_EXAMPLES)
def list_keys(as_json: AsJson = False) -> None:
    """List the keys. page opens the page; default is for clients; configured is the setting `api_key`."""
    found = [{"name": one.name, "scopes": list(one.scopes), "created": one.created} for one in _keys().all()]
    if as_json:
        typer.echo(json.dumps({"data": found}, ensure_ascii=False))
        return
    from user_agent.commands.config import print_table

    print_table(
        ("key", "scopes", "created"), ((one["name"], ", ".join(one["scopes"]), one["created"]) for one in found)
    )


@keys.command(epilog=REVOKE_EXAMPLES)
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key, as `user-agent keys list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Make a key invalid. The agent makes a new page or default key when it starts next."""
    _keys().revoke(name)
    typer.echo(
        json.dumps({"name": name, "revoked": True}, ensure_ascii=False) if as_json else f"the key {name} is revoked"
    )
