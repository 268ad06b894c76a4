"""`core-server models`: core models by the name of their pair, listed and downloaded on request."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from core_server.remedies import run_command
from ssd2.models.pairs import PAIRS, in_bytes, pair_named

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - its name

_EXAMPLES = """\
examples:
  core-server models list
      list the pairs with size, memory, context length and licence of their core models
  core-server models get qwen2.5-7b
      download the core model; `core-server --model qwen2.5-7b` then serves it

On the device, `user-agent models get NAME --side user` downloads the user model of the same pair.
"""


def main(arguments: Sequence[str]) -> int:
    """Run `models …`.

    Returns:
        The exit code: 0, or 2 if it was refused.
    """
    return run_command(_parser(), arguments)


_COLUMNS = "{:23}{:12}{:20}{:10}{}\n"


def _list() -> None:
    sys.stdout.write(_COLUMNS.format("pair", "download", "memory bf16, f32", "context", "licence; run by the project"))
    for pair in PAIRS:
        core = pair.core
        state = "downloaded" if core.is_downloaded else in_bytes(core.download_bytes)
        memory = f"{in_bytes(core.memory_bytes(2))}, {in_bytes(core.memory_bytes(4))}"
        licence = f"{core.licence}{', gated' if core.is_gated else ''}; {pair.run or 'no'}"
        sys.stdout.write(_COLUMNS.format(pair.name, state, memory, f"{core.context:,}", licence))
    sys.stderr.write("Memory is for the weights and half a gigabyte; slots come on top (deploy/sizing.md).\n")


def _get(name: str) -> None:
    from ssd2.models.download import download

    core = pair_named(name).core
    if core.is_gated:
        sys.stderr.write(f"core-server: licence of {core.repository}: {core.licence}, {core.licence_url}\n")
    if not core.is_downloaded:
        sys.stderr.write(f"core-server: downloading {core.repository}, {in_bytes(core.download_bytes)}\n")
    folder = download(core, token=os.environ.get(TOKEN_VARIABLE) if core.is_gated else None)
    sys.stdout.write(f"{folder}\n")


def _parser() -> argparse.ArgumentParser:
    shape = {"epilog": _EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    summary = "List and download core models of the catalogue."
    parser = argparse.ArgumentParser(prog="core-server models", description=summary, **shape)  # type: ignore[arg-type]
    commands = parser.add_subparsers(required=True, metavar="list | get")
    commands.add_parser("list", help="List the pairs.").set_defaults(run=_list)
    get = commands.add_parser("get", help="Download the core model of a pair; an interrupted download continues.")
    get.add_argument("name", metavar="NAME", help="Name of the pair, as `core-server models list` shows it.")
    get.set_defaults(run=_get)
    return parser
