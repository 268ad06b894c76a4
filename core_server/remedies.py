"""Errors as `core-server` prints them, with the options and commands that mend them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ssd2.errors import ANY, Remedies, SlingshotError, with_remedies

EXIT_REFUSED = 2
"""Exit code of a command that was refused."""

REMEDIES: Remedies = {
    ("too_little_memory", "precision"): "--precision bfloat16 takes half of float32, int8 a quarter",
    (ANY, "models"): "--model NAME=DIR",
    (ANY, "pair"): "`core-server models list`, `core-server models get NAME`",
    (ANY, "hub_token"): "the environment variable HF_TOKEN",
    (ANY, "tls_certificate"): "--tls-certificate FILE --tls-key FILE; `core-server certs create` creates them",
    (ANY, "client_ca"): "--client-ca FILE",
    (ANY, "keys"): "--keys FILE; `core-server keys create NAME --keys FILE` creates one",
    (ANY, "key"): "`core-server keys list`",
    (ANY, "out"): "--out FOLDER",
    (ANY, "port"): "--port or --host",
    (ANY, "ops_port"): "--ops-port or --ops-host",
    (ANY, "device"): "--device",
    (ANY, "precision"): "--precision or --device",
    (ANY, "tensor_parallel"): "--tensor-parallel",
    (ANY, "logits"): "--logits",
    (ANY, "upstream"): "--upstream URL --upstream-model NAME --tokenizer FOLDER",
    (ANY, "upstream_model"): "--upstream-model NAME",
    (ANY, "upstream_key"): "--upstream-key FILE, or the variable SLINGSHOT_UPSTREAM_KEY",
    (ANY, "tokenizer"): "--tokenizer FOLDER",
}


def with_remedy(error: SlingshotError) -> str:
    """Return the text of an error with the option or the command that mends it, if there is one."""
    return with_remedies(error, REMEDIES)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Parse a subcommand and call its `run` with its options.

    Returns:
        The exit code: 0, or `EXIT_REFUSED`.
    """
    options = vars(parser.parse_args(arguments))
    run = options.pop("run")
    try:
        run(**options)
    except SlingshotError as error:
        sys.stderr.write(f"core-server: error: {with_remedy(error)}\n")
        return EXIT_REFUSED
    return 0
