"""`user-agent config` and `user-agent doctor`: settings, and a check of what the agent needs."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ssd2.cli.help import App, examples
from ssd2.errors import InvalidParameter, SlingshotError
from user_agent.commands.remedies import with_remedy
from user_agent.commands.setting_options import LINE, with_settings
from user_agent.config import FILE, SETTINGS, AgentConfig, load_config, no_setting, save_settings
from user_agent.errors import StoreUnreadable
from user_agent.fields import as_text
from user_agent.store.tuned import config_folder

config = App(help="Settings of the agent. Precedence: command-line option, environment variable, config.toml.")

SHOW_EXAMPLES = examples(
    "user-agent config show",
    "user-agent config show --key   (the key that REST clients need)",
    "user-agent config show --page-key",
)
GET_EXAMPLES = examples("user-agent config get core", "user-agent config get lambda_user")
SET_EXAMPLES = examples(
    "user-agent config set core core.example.org:50051",
    "user-agent config set ca ~/slingshot/provider.pem",
    "user-agent config set lambda_user 0.4",
    "user-agent config set lambda_user   (back to the default)",
)
KEY_EXAMPLES = examples(
    "user-agent config set-core-key core.example.org:50051",
    "user-agent config set-core-key core.example.org:50051 < key.txt",
)
FORGET_EXAMPLES = examples("user-agent config forget-core-key core.example.org:50051")
DOCTOR_EXAMPLES = examples(
    "user-agent doctor", "user-agent doctor --core core.example.org:50051 --ca provider.pem --json"
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Name = Annotated[str, typer.Argument(help="Name of the setting, as `user-agent config show` lists it.")]


@config.command(epilog=SHOW_EXAMPLES)
def show(
    key: Annotated[bool, typer.Option("--key", help="Print only the key for REST clients.")] = False,
    page_key: Annotated[bool, typer.Option("--page-key", help="Print only the key that opens the page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every setting with its value and meaning."""
    from user_agent.api.security import access_keys

    loaded = load_config()
    if key or page_key:
        keys = access_keys(loaded)
        typer.echo(keys.page if page_key else keys.client)
        return
    values = {name: _shown(getattr(loaded, name)) for name in SETTINGS}
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False))
        return
    print_table(("setting", "value", "meaning"), ((name, values[name], SETTINGS[name].text) for name in SETTINGS))


@config.command(epilog=GET_EXAMPLES)
def get(name: Name) -> None:
    """Print the value of one setting; an empty line means that the default depends on the models."""
    if name not in SETTINGS:
        raise no_setting(name)
    value = _shown(getattr(load_config(), name))
    typer.echo("" if value is None else value)


@config.command("set", epilog=SET_EXAMPLES)
def set_one(
    name: Name,
    value: Annotated[str | None, typer.Argument(help="New value; omit it to return to the default.")] = None,
) -> None:
    """Save a setting in config.toml. It applies to agents started afterwards."""
    try:
        save_settings({name: value})
    except InvalidParameter as error:  # without the remedy of its parameter: this command is it
        raise InvalidParameter(str(error)) from error
    typer.echo(f"{name} is {'back to its default' if value is None else 'saved'} in {config_folder() / FILE}")


CoreAddress = Annotated[
    str | None,
    typer.Argument(
        metavar="HOST:PORT",
        help="Address of the core, or of its replicas separated by commas, as for --core. Default: the configured one.",
    ),
]


@config.command(epilog=KEY_EXAMPLES)
def set_core_key(core: CoreAddress = None) -> None:
    """Save the API key that a core's provider gave you in the system's keyring.

    The command prompts for the key, or reads it from standard input, because other users of the machine could read an
    argument. Without a keyring, set the environment variable SLINGSHOT_CORE_KEY instead. Agents started afterwards
    send the key.
    """
    from user_agent.line.core_key import keep_core_key

    address = _core_address(core)
    asked = typer.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    keep_core_key(address, asked.strip())
    typer.echo(f"the key for the core at {address} is stored in the system's keyring")


@config.command(epilog=FORGET_EXAMPLES)
def forget_core_key(core: CoreAddress = None) -> None:
    """Delete the key for a core from the system's keyring."""
    from user_agent.line.core_key import forget_core_key as forget

    address = _core_address(core)
    forget(address)
    typer.echo(f"the key for the core at {address} is deleted from the system's keyring")


def _core_address(given: str | None) -> str:
    if address := given or load_config().core:
        return address
    raise InvalidParameter("no core is configured; give the address of the key's core as HOST:PORT")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        is_ok: whether the agent can work with it.
        says: how it is, or what to do about it.
        is_warning: whether it should be otherwise all the same.
    """

    what: str
    is_ok: bool
    says: str
    is_warning: bool = False

    @property
    def mark(self) -> str:
        """A sign for it."""
        return ("!" if self.is_warning else "✓") if self.is_ok else "✗"


@with_settings(*LINE, "pair", "user_model", "data_dir")
def doctor(config: AgentConfig, as_json: AsJson = False) -> None:
    """Check the models, the core and the store, and suggest fixes; exit with code 1 if something is wrong."""
    findings = _findings(config)
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, ensure_ascii=False))
    else:
        print_table(("", "check", "result"), ((f.mark, f.what, f.says) for f in findings))
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(1)


def _findings(config: AgentConfig) -> list[Finding]:
    found = []
    for what, look in (("user model", _user_model), ("core", _core), ("store", _store), ("key", _key)):
        try:
            found.append(Finding(what, True, look(config)))
        except SlingshotError as error:
            found.append(Finding(what, False, with_remedy(error)))
    return [*found, _reading()]


def _reading() -> Finding:
    from user_agent.documents.extraction import Extractor, exposure_warning

    with Extractor() as extractor:
        exposure = extractor.exposure()
    if exposure:
        return Finding("reading files", True, exposure_warning(exposure), is_warning=True)
    says = "in a process without network access, which can read all files that your account can read"
    return Finding("reading files", True, says)


def _user_model(config: AgentConfig) -> str:
    from user_agent.answering.user_model import UserModel

    model = UserModel.configured(config, with_weights=True)
    size, on = model.config.vocab_size, f"{model.precision} on {model.device}"
    return f"{config.user_folder}: family {model.config.family}, vocabulary size {size}, {on}"


def _core(config: AgentConfig) -> str:
    from user_agent.answering.run import check_card
    from user_agent.answering.user_model import UserModel
    from user_agent.line.client import CoreClient
    from user_agent.line.line import credentials_of, how_protected
    from user_agent.stores import open_stores

    if not config.asks_core:
        config.check_pair()
        why = f": with {config.pair} the user model does as well by itself" if config.lambda_user is None else ""
        return f"λ is 1, so none is asked or started{why}"
    if config.core is None:
        config.check_pair()
        whose = f"that of {config.pair}" if config.pair else "the demo's"
        return f"none configured, so the agent starts {whose}; set one with `user-agent config set core HOST:PORT`"
    model = UserModel.load(config.user_folder, with_weights=False)

    credentials = credentials_of(config)

    async def ask(address: str) -> str:
        with open_stores(config) as stores:
            line = CoreClient(address, stores.ledger, credentials=credentials, answer_timeout_s=config.timeout)
            async with line as client:
                card = await client.model_card(config.model, model.config.family)
        check_card(card, model, config.model)
        how = how_protected(config, address)
        key = f", API key from {credentials.key_source}" if credentials.key else ""
        return f"{address}, {how}{key}: {card.model}, {card.parameters:,} parameters, the user model's tokenizer"

    return asyncio.run(ask(config.core))


def _store(config: AgentConfig) -> str:
    from user_agent.stores import open_stores

    with open_stores(config) as stores:
        states, checked = [document.state for document in stores.documents.documents()], stores.ledger.verify()
    read, failed = states.count("indexed"), states.count("failed")
    said = f"{config.data_dir}: {read} documents read, {failed} failed; {checked.entries} entries in the ledger"
    if checked.broken_seq is not None:
        broken = f"entry {checked.broken_seq} breaks the hash chain: {checked.reason}"
        raise StoreUnreadable(f"{said}, but {broken}; restore a backup")
    return f"{said}, with a consistent hash chain"


def _key(config: AgentConfig) -> str:
    from user_agent.stores import open_stores

    with open_stores(config) as stores:
        source = stores.key_source
    if source != "file":
        return f"from: {source}"
    return (
        "in a file in the configuration folder, because no keyring was found; it protects a disk or a backup only if "
        "the file is not on it; SLINGSHOT_PASSPHRASE protects better"
    )


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else as_text(value)


def print_table(header: tuple[str, ...], rows: Any) -> None:
    """Print rows below a header, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(highlight=False).print(table)
