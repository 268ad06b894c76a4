"""`core-server keys` and `core-server certs`: who gets in. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core_server.access.keys import KeyEntry, create_key, read_keys, revoke_key
from ssd2.algorithm.timesteps import DEFAULT_STEPS
from ssd2.errors import InvalidParameter, SlingshotError

EXIT_REFUSED = 2
DAYS = 365

_KEYS_EXAMPLES = """\
examples:
  core-server keys create alice --keys keys.json --max-sessions 4 --tokens-per-minute 6000
      make a key; it is printed once and kept nowhere
  core-server keys list --keys keys.json
      whose keys there are, and their limits
  core-server keys revoke alice --keys keys.json
      a running server takes no call with it within two seconds, and ends answers in progress

An agent keeps its key with `user-agent config set-core-key HOST:PORT`.
"""
_CERTS_EXAMPLES = """\
examples:
  core-server certs create --out certs --host core.example.org --host 203.0.113.7
      an authority (ca.pem, ca.key) and the core's certificate (core.pem, core.key)
  core-server certs create --out certs --client alice
      a certificate for an agent (client-alice.pem, client-alice.key), signed by the same authority
  core-server certs create --out certs --host core.example.org
      once more: a new certificate of the core, signed by the same authority; restart the server with it

Agents get ca.pem (user-agent --ca), a server that asks for their certificates too (--client-ca). Keep ca.key apart:
whoever has it can be your core.
"""


def main(arguments: Sequence[str]) -> int:
    """Run `keys …` or `certs …`.

    Returns:
        The exit code: 0, or 2 if it cannot be done as asked.
    """
    options = vars(_parser().parse_args(arguments))
    run = options.pop("run")
    try:
        run(**options)
    except SlingshotError as error:
        sys.stderr.write(f"core-server: error: {error}\n")
        return EXIT_REFUSED
    return 0


def _create_key(keys: Path, name: str, **limits: int | None) -> None:
    key, entry = create_key(keys, name, **limits)
    sys.stderr.write(f"core-server: key {entry.id} for {entry.name}; it is shown this once:\n")
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
        raise InvalidParameter("say whom the certificates are for: --host NAME for a core, --client NAME for an agent")
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
    _add_keys(_command(commands, "keys", "Make, list and revoke the keys of agents.", _KEYS_EXAMPLES))
    _add_certs(_command(commands, "certs", "Make certificates with an authority of your own.", _CERTS_EXAMPLES))
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="create | list | revoke")
    create = _command(commands, "create", "Make a key and print it, this once.", _KEYS_EXAMPLES)
    create.add_argument("name", metavar="NAME", help="whose it is; no two keys have one name")
    create.add_argument(
        "--max-sessions",
        type=int,
        metavar="N",
        help="answers in progress at a time, at each server that reads the file (default: half of the server's "
        "--max-sessions, all if there is no other key; any on Ray)",
    )
    create.add_argument(
        "--tokens-per-minute",
        type=int,
        metavar="N",
        help="tokens computed, in the long run, by each server. A block costs its tokens for each "
        f"{DEFAULT_STEPS} timesteps begun. An answer is never cut off; what it takes beyond the limit delays the next "
        "one (default: any)",
    )
    create.add_argument(
        "--timesteps-per-minute",
        type=int,
        metavar="N",
        help="timesteps computed, in the long run, likewise (default: any)",
    )
    create.set_defaults(run=_create_key)
    listing = _command(commands, "list", "Show whose keys there are, and their limits.", _KEYS_EXAMPLES)
    listing.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    listing.set_defaults(run=_list_keys)
    revoke = _command(commands, "revoke", "Take a key out, for running servers too.", _KEYS_EXAMPLES)
    revoke.add_argument("key", metavar="ID-or-NAME", help="as `core-server keys list` shows it")
    revoke.set_defaults(run=_revoke_key)
    for command in (create, listing, revoke):
        command.add_argument("--keys", type=Path, required=True, metavar="FILE", help="the server's file of keys")


def _add_certs(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="create")
    create = _command(commands, "create", "Make certificates, and their authority if there is none.", _CERTS_EXAMPLES)
    add = create.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the authority and of what it signs")
    add(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address that agents reach the core by; may be given again",
    )
    add("--client", action="append", default=[], metavar="NAME", help="an agent; may be given again")
    add("--days", type=int, default=DAYS, metavar="N", help="how long they are valid (default: %(default)s)")
    create.set_defaults(run=_create_certs)


def _command(commands: Any, name: str, says: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=says, description=says, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser
