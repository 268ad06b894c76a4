"""`core-server keys` and `core-server certs`. Nothing heavy is imported before the arguments are parsed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core_server.access.keys import KeyEntry, create_key, read_keys, revoke_key
from core_server.remedies import run_command
from ssd2.algorithm.timesteps import DEFAULT_STEPS
from ssd2.errors import InvalidParameter

DAYS = 365

_KEYS_EXAMPLES = """\
examples:
  core-server keys create alice --keys keys.json --max-sessions 4 --tokens-per-minute 6000
      create a key; it is printed once and stored only as a hash
  core-server keys list --keys keys.json
      list the keys and their limits
  core-server keys revoke alice --keys keys.json
      revoke a key; takes effect on a running server within two seconds, for answers in progress too

On the device, `user-agent config set-core-key HOST:PORT` stores the key.
"""
_CERTS_EXAMPLES = """\
examples:
  core-server certs create --out certs --host core.example.org --host 203.0.113.7
      create an authority (ca.pem, ca.key) and the core's certificate (core.pem, core.key)
  core-server certs create --out certs --client alice
      create an agent's certificate (client-alice.pem, client-alice.key), signed by the same authority
  core-server certs create --out certs --host core.example.org
      renew the core's certificate with the same authority; restart the server to use it

Give ca.pem to agents (user-agent --ca), and to a server that asks agents for certificates (--client-ca). Store ca.key
elsewhere: whoever has it can impersonate your core.
"""


def main(arguments: Sequence[str]) -> int:
    """Run `keys …` or `certs …`.

    Returns:
        The exit code: 0, or 2 if it was refused.
    """
    return run_command(_parser(), arguments)


def _create_key(keys: Path, name: str, **limits: int | None) -> None:
    key, entry = create_key(keys, name, **limits)
    sys.stderr.write(f"core-server: key {entry.id} for {entry.name}; it is shown only once:\n")
    sys.stdout.write(f"{key}\n")


def _list_keys(keys: Path, as_json: bool) -> None:
    entries = read_keys(keys)
    if as_json:
        shown = [{name: value for name, value in asdict(entry).items() if name != "sha256"} for entry in entries]
        sys.stdout.write(json.dumps({"keys": shown}, ensure_ascii=False) + "\n")
        return
    rows = [("ID", "NAME", "CREATED", "SESSIONS", "TOKENS/MIN", "TIMESTEPS/MIN"), *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _row(entry: KeyEntry) -> tuple[str, ...]:
    limits = (entry.max_sessions, entry.tokens_per_minute, entry.timesteps_per_minute)
    return (entry.id, entry.name, entry.created, *("-" if limit is None else str(limit) for limit in limits))


def _revoke_key(keys: Path, key: str) -> None:
    entry = revoke_key(keys, key)
    sys.stderr.write(f"core-server: key {entry.id} of {entry.name} is revoked\n")


def _create_certs(out: Path, host: list[str], client: list[str], days: int) -> None:
    if not host and not client:
        raise InvalidParameter("no certificate holder is named; use --host NAME for a core, --client NAME for an agent")
    if days < 1:
        raise InvalidParameter(f"days is {days}; it must be at least 1")
    from core_server.access.certs import Authority

    authority = Authority.in_folder(out)
    if host:
        authority.sign_core(host, out, days)
    for name in client:
        authority.sign_client(name, out, days)
    stems = [*(["core"] if host else []), *(f"client-{name}" for name in client)]
    sys.stderr.write(f"core-server: in {out}: {', '.join(f'{stem}.pem, {stem}.key' for stem in ('ca', *stems))}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="core-server")
    commands = parser.add_subparsers(required=True)
    _add_keys(_command(commands, "keys", "Create, list and revoke API keys.", _KEYS_EXAMPLES))
    _add_certs(_command(commands, "certs", "Create TLS certificates with an authority of your own.", _CERTS_EXAMPLES))
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="create | list | revoke")
    create = _command(commands, "create", "Create a key and print it once.", _KEYS_EXAMPLES)
    create.add_argument("name", metavar="NAME", help="Name of the key's holder; must be unique.")
    create.add_argument(
        "--max-sessions",
        type=int,
        metavar="N",
        help="Maximum number of answers in progress, at each server that reads the file. Default: half of the "
        "server's --max-sessions, or all of them for the only key; on Ray no limit.",
    )
    create.add_argument(
        "--tokens-per-minute",
        type=int,
        metavar="N",
        help="Tokens per minute at each server, on average. A block costs its tokens for every "
        f"{DEFAULT_STEPS} timesteps begun. Answers are never cut off: tokens beyond the limit delay the next answer. "
        "Default: no limit.",
    )
    create.add_argument(
        "--timesteps-per-minute",
        type=int,
        metavar="N",
        help="Timesteps per minute at each server, on average. Default: no limit.",
    )
    create.set_defaults(run=_create_key)
    listing = _command(commands, "list", "List the keys and their limits.", _KEYS_EXAMPLES)
    listing.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON object.")
    listing.set_defaults(run=_list_keys)
    revoke = _command(commands, "revoke", "Revoke a key, on running servers too.", _KEYS_EXAMPLES)
    revoke.add_argument("key", metavar="ID-or-NAME", help="ID or name, as `core-server keys list` shows it.")
    revoke.set_defaults(run=_revoke_key)
    for command in (create, listing, revoke):
        command.add_argument("--keys", type=Path, required=True, metavar="FILE", help="The server's file of keys.")


def _add_certs(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="create")
    create = _command(commands, "create", "Create certificates, and their authority if there is none.", _CERTS_EXAMPLES)
    add = create.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="Folder of the authority and its certificates.")
    add(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="Host name or address of the core, to make its certificate for; repeatable.",
    )
    add(
        "--client",
        action="append",
        default=[],
        metavar="NAME",
        help="Name of an agent, to make a certificate for; repeatable.",
    )
    add(
        "--days",
        type=int,
        default=DAYS,
        metavar="N",
        help="Number of days that the certificates are valid. Default: %(default)s.",
    )
    create.set_defaults(run=_create_certs)


def _command(commands: Any, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this message and exit.")
    return parser
