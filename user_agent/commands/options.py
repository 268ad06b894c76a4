"""Options of the commands that make a line to a core. A key is none of them: a process's arguments are read by all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd2.errors import SlingshotError

Ca = Annotated[
    Path | None,
    typer.Option(
        help="CA certificate of the core's provider (PEM). Turns TLS on; a core on another machine needs it, or "
        "--insecure."
    ),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Allow an unencrypted line to a core on another machine: whoever is on the way can read questions and "
        "answers. Without effect where --ca is set.",
        show_default=False,
    ),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option(help="PEM file of this device's certificate, for a core that asks for one."),
]
ClientKey = Annotated[Path | None, typer.Option(help="PEM file of the private key of --client-certificate.")]

HOW_TO_GIVE_A_CORE = "give its address with --core HOST:PORT, or keep it with `user-agent config set core HOST:PORT`"

_REMEDIES = {
    "core": "--core HOST:PORT, or `user-agent config set core HOST:PORT`",
    "ca": "--ca FILE, or `user-agent config set ca FILE`",
    "insecure": "--ca FILE, or --insecure if you trust every network on the way",
    "client_certificate": "--client-certificate FILE --client-key FILE",
    "user_model": "--user-model FOLDER, or `user-agent config set user_model FOLDER`",
    "timeout": "`user-agent config set timeout SECONDS`",
    "logits": "--logits FORMAT",
    "block_size": "--block-size",
    "max_tokens": "--max-tokens",
}
"""What a reader in a terminal can do, by the parameter of an error. The page and the REST endpoint have their own."""


def with_remedy(error: SlingshotError) -> str:
    """Return the text of an error with the option or the command that mends it, if there is one."""
    remedy = _REMEDIES.get(error.parameter or "")
    return f"{error} ({remedy})" if remedy else str(error)
